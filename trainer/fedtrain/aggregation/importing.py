"""A checkpoint becomes global/0: one file or shards, published with fp32 for floating tensors.

A safetensors file does not say what is a parameter and what a buffer; the running statistics of
PyTorch's batch norms (`running_mean`, `running_var`) are the buffers that are known by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain import codecs, modeltexts, partial
from fedtrain.aggregation.log import Stopwatch, say
from fedtrain.contract import MANIFEST_FILE, MODEL_FILE, SCHEMA_FILE, ImportTask, Message
from fedtrain.errors import DataError
from fedtrain.layout import FLOATING, TensorFileError, TensorInfo, numpy_dtype
from fedtrain.manifest import Manifest
from fedtrain.modelfiles import ModelFiles, open_model
from fedtrain.publication import Publication, published
from fedtrain.schema import Kind, Schema, TensorSpec
from fedtrain.tensorfile import PIECE_BYTES, TensorWriter

Array = np.ndarray[Any, Any]
_BUFFERS = ("running_mean", "running_var")


def import_model(task: ImportTask, root: Path) -> Message:
    """Publish `task.source` as `task.output`. Raises DataError (ModelUnreadable), OSError."""
    folder = root / task.output
    text = published(folder, MANIFEST_FILE)
    if text is None:
        text = _publish(task, folder)
    else:
        say(f"{task.output} is published already: that is the result")
    manifest = Manifest.from_json(text)
    result = {"digest": manifest.digest, "size": manifest.size}
    return Message(message=f"{task.source} became {task.output}", result=result)


def _publish(task: ImportTask, folder: Path) -> str:
    watch = Stopwatch()
    try:
        # A model hub's cache is made of links; whoever names the path owns the claim it is on.
        with open_model(task.source, links=True) as model:
            schema = Schema.of(
                _spec(info)
                for info in model.tensors.values()
                if partial.travels(info.name, task.include, task.exclude)
            )
            if not any(spec.kind == "parameter" for spec in schema.tensors):
                what = "" if len(schema.tensors) == len(model.tensors) else " that is exchanged"
                raise TensorFileError("NoParameters", f"it holds no floating tensor{what}")
            with Publication(folder, MANIFEST_FILE) as publication:
                path = publication.path / MODEL_FILE
                with TensorWriter(path, schema.layout(), {"format": "pt"}) as writer:
                    for spec in schema.tensors:
                        _copy(model, model.tensors[spec.name], writer)
                    files = modeltexts.beside(Path(task.source))
                    manifest = _manifest(task, schema, writer, files)
                say(f"imported {len(schema.tensors)} tensors: {watch.rate(model.size)}")
                return publication.commit(
                    manifest.to_json(), {SCHEMA_FILE: schema.to_json(), **files}
                )
    except TensorFileError as error:
        raise DataError("ModelUnreadable", f"{task.source}: {error}") from error


def _spec(info: TensorInfo) -> TensorSpec:
    kind: Kind = "integer"
    if info.dtype in FLOATING:
        kind = "buffer" if info.name.rpartition(".")[2] in _BUFFERS else "parameter"
    dtype = "F32" if info.dtype in FLOATING else info.dtype
    return TensorSpec(name=info.name, dtype=dtype, shape=info.shape, kind=kind)


def _copy(model: ModelFiles, info: TensorInfo, writer: TensorWriter) -> None:
    step = PIECE_BYTES // numpy_dtype(info.dtype).itemsize
    for start in range(0, info.count, step):
        piece = model.read(info.name, start, min(start + step, info.count))
        if info.dtype in FLOATING:
            piece = widened(piece, info.dtype)
            if not np.isfinite(piece).all():
                sentence = f"tensor {info.name[:80]!a} holds values that are not finite in fp32"
                raise TensorFileError("NotFinite", sentence)
        writer.write(info.name, start, piece)


def widened(piece: Array, dtype: str) -> Array:
    """Floating values as fp32: exact for BF16 and F16, rounded to nearest for F64."""
    if dtype == "BF16":
        return codecs.widened(piece)
    with np.errstate(over="ignore"):
        return piece.astype(np.float32, copy=False)


def _manifest(
    task: ImportTask, schema: Schema, writer: TensorWriter, files: Mapping[str, str]
) -> Manifest:
    return Manifest(
        training=task.uid,
        round=task.round,
        n=int(Path(task.output).name),
        base=None,
        digest=writer.digest(),
        size=writer.size,
        counters={
            "elements": sum(info.count for info in schema.layout()),
            "tensors": len(schema.tensors),
        },
        files=modeltexts.digests(files),
    )
