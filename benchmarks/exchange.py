"""An exchange as it looks when the participants of a round have published: real files, no holes."""

from pathlib import Path

import numpy as np

from fedtrain.contract import (
    MANIFEST_FILE,
    MODEL_FILE,
    SCHEMA_FILE,
    UPDATE_FILE,
    AggregateTask,
    ModelRef,
    Receipt,
    global_folder,
    update_folder,
)
from fedtrain.manifest import Manifest
from fedtrain.publication import Publication
from fedtrain.schema import Schema, TensorSpec
from fedtrain.tensorfile import TensorWriter

UID = "be9c4000-0000-4000-8000-000000000000"


def made(root: Path, updates: int, nbytes: int) -> AggregateTask:
    """A global model and `updates` updates of it, in layers of 64 MB as transformers have them."""
    layer = 16_000_000
    counts = [layer] * (nbytes // 4 // layer) + [nbytes // 4 % layer]
    specs = [
        TensorSpec(name=f"layer.{number:03}.weight", dtype="F32", shape=(count,))
        for number, count in enumerate(counts)
    ]
    schema = Schema.of(specs)
    with Publication(root / global_folder(0, 1), MANIFEST_FILE) as publication:
        digest, size = _write(publication.path / MODEL_FILE, schema, 0)
        manifest = Manifest(training=UID, round=0, n=1, base=None, digest=digest, size=size)
        publication.commit(manifest.to_json(), {SCHEMA_FILE: schema.to_json()})
    names = [f"p{number:03}" for number in range(updates)]
    for number, name in enumerate(names):
        with Publication(root / update_folder(name, 1, 1)) as publication:
            said, size = _write(publication.path / UPDATE_FILE, schema, number + 1)
            receipt = Receipt(
                training=UID,
                round=1,
                participant=name,
                attempt=1,
                base=digest,
                digest=said,
                size=size,
                samples=100 + number,
            )
            publication.commit(receipt.to_json())
    return AggregateTask(
        training="bench",
        uid=UID,
        round=1,
        attempt=1,
        model=ModelRef(path=global_folder(0, 1), digest=digest),
        output=global_folder(1, 1),
        candidates=tuple((name, 1) for name in names),
        minimum=updates,
    )


def _write(path: Path, schema: Schema, seed: int) -> tuple[str, int]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=0.01, size=1 << 20).astype(np.float32)
    with TensorWriter(path, schema.layout()) as writer:
        for spec in schema.tensors:
            for start in range(0, spec.shape[0], noise.size):
                piece = noise[: min(noise.size, spec.shape[0] - start)]
                writer.write(spec.name, start, np.roll(piece, start // noise.size))
        return writer.digest(), writer.size
