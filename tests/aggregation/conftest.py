"""Builders that read like English: a federation on a temporary exchange, and what it published."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.aggregation import engine
from fedtrain.contract import (
    MANIFEST_FILE,
    MODEL_FILE,
    SCHEMA_FILE,
    UPDATE_FILE,
    AggregateTask,
    Message,
    ModelRef,
    Receipt,
    Task,
    encode_task,
    global_folder,
    update_folder,
)
from fedtrain.manifest import Manifest
from fedtrain.publication import Publication
from fedtrain.schema import Kind, Schema, TensorSpec
from fedtrain.tensorfile import TensorFile, TensorWriter, dtype_name, plan

Arrays = Mapping[str, np.ndarray]
TRAINER = Path(__file__).parents[2] / "trainer"
UID = "1a2b3c4d-0000-4000-8000-000000000000"


def write_tensors(path: Path, tensors: Arrays) -> tuple[str, int]:
    """The digest and the size of a new safetensors file."""
    layout = plan((name, dtype_name(array), array.shape) for name, array in tensors.items())
    with TensorWriter(path, layout) as writer:
        for name, array in tensors.items():
            writer.write(name, 0, array)
        return writer.digest(), writer.size


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    with TensorFile.open(path) as file:
        return {name: file.read(name).reshape(info.shape) for name, info in file.tensors.items()}


@dataclass
class Ended:
    """A process of ours that has ended: its exit code, message and output."""

    code: int
    message: Message | None
    output: str
    seconds: float = 0.0


@dataclass
class Federation:
    """One training on an exchange of its own, in round 1, whose global model is `model`."""

    root: Path
    model: Arrays
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    candidates: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        folder = self.root / global_folder(0, 1)
        specs = [
            TensorSpec(
                name=name,
                dtype=dtype_name(array),
                shape=array.shape,
                kind=self.kinds.get(name, "parameter" if array.dtype.kind == "f" else "integer"),
            )
            for name, array in self.model.items()
        ]
        with Publication(folder, MANIFEST_FILE) as publication:
            self.digest, size = write_tensors(publication.path / MODEL_FILE, self.model)
            manifest = Manifest(
                training=UID, round=0, n=1, base=None, digest=self.digest, size=size
            )
            schema = Schema.of(specs).to_json()
            publication.commit(manifest.to_json(), {SCHEMA_FILE: schema})

    def folder_of(self, participant: str, attempt: int = 1, round_number: int = 1) -> Path:
        return self.root / update_folder(participant, round_number, attempt)

    def with_update(self, name: str, deltas: Arrays, samples: int = 1, **said: Any) -> "Federation":
        """Participant `name` published `deltas`; `said` replaces what its receipt would say."""
        with Publication(self.folder_of(name)) as publication:
            digest, size = write_tensors(publication.path / UPDATE_FILE, deltas)
            receipt = Receipt(
                training=UID,
                round=1,
                participant=name,
                attempt=1,
                base=self.digest,
                digest=digest,
                size=size,
                samples=samples,
                steps=1,
                learning_rate=0.1,
                norm=1.0,
            )
            publication.commit(dataclasses.replace(receipt, **said).to_json())
        self.candidates.append((name, 1))
        return self

    def with_file(self, participant: str, write: Callable[[Path], None]) -> "Federation":
        """The participant published whatever `write` puts at the path, with an honest receipt."""
        with Publication(self.folder_of(participant)) as publication:
            path = publication.path / UPDATE_FILE
            write(path)
            receipt = Receipt(
                training=UID,
                round=1,
                participant=participant,
                attempt=1,
                base=self.digest,
                digest="sha256:" + "0" * 64,
                size=os.lstat(path).st_size,
                samples=1,
                steps=1,
                learning_rate=0.1,
                norm=1.0,
            )
            publication.commit(receipt.to_json())
        self.candidates.append((participant, 1))
        return self

    def task(self, **said: Any) -> AggregateTask:
        task = AggregateTask(
            training="digits",
            uid=UID,
            round=1,
            attempt=1,
            model=ModelRef(path=global_folder(0, 1), digest=self.digest),
            output=global_folder(1, 1),
            candidates=tuple(sorted(self.candidates)),
            minimum=1,
        )
        return dataclasses.replace(task, **said)

    def aggregate(self, threads: int = 1, **said: Any) -> Message:
        """In this process; raises what the engine raises."""
        return engine.aggregate(self.task(**said), self.root, threads)

    def run(self, threads: int = 2, **said: Any) -> Ended:
        """As the aggregator's pod does it."""
        return run(self.task(**said), self.root, threads)

    def run_with(self, before: str, after: str = "", threads: int = 2, **said: Any) -> Ended:
        """As its pod does it, with Python statements before and after the program's own."""
        program = f"{before}\nfrom fedtrain.aggregation.process import main\ncode = main()\n{after}"
        return run(
            self.task(**said), self.root, threads, ("-c", f"{program}\nraise SystemExit(code)")
        )

    def result(self, round_number: int = 1, n: int = 1) -> dict[str, np.ndarray]:
        return read_tensors(self.root / global_folder(round_number, n) / MODEL_FILE)

    def published_bytes(self, n: int = 1) -> str:
        """One hash over the names and bytes of everything that an aggregation published."""
        folder = self.root / global_folder(1, n)
        whole = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            whole.update(path.name.encode() + path.read_bytes())
        return whole.hexdigest()

    def manifest(self, n: int = 1) -> Manifest:
        path = self.root / global_folder(1, n) / MANIFEST_FILE
        return Manifest.from_json(path.read_text())

    def verdict_on(self, participant: str, message: Message) -> str:
        """ "accepted", or the reason why not."""
        at = [name for name, _ in sorted(self.candidates)].index(participant)
        verdict = message.result["verdicts"][at]
        return "accepted" if verdict == "." else str(message.result["reasons"][verdict])


def environment(root: Path, message: Path, threads: int = 2) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(TRAINER),
        "FEDTRAIN_ROOT": str(root),
        "FEDTRAIN_TERMINATION_LOG": str(message),
        "FEDTRAIN_THREADS": str(threads),
    }


def run(
    task: Task | str,
    root: Path,
    threads: int = 2,
    program: Sequence[str] = ("-m", "fedtrain.aggregation"),
) -> Ended:
    """`python -m fedtrain.aggregation` (or another program) on a task."""
    with tempfile.TemporaryDirectory() as folder:
        message = Path(folder) / "message"
        variables = environment(root, message, threads)
        variables["FEDTRAIN_TASK"] = task if isinstance(task, str) else encode_task(task)
        ended = subprocess.run(
            [sys.executable, *program],
            env=variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        left = Message.decode(message.read_text()) if message.exists() else None
    return Ended(ended.returncode, left, ended.stdout)


@pytest.fixture(scope="session")
def a_federation() -> Iterator[Callable[..., Federation]]:
    """Makes federations, each on an exchange of its own that is gone after the tests."""
    with tempfile.TemporaryDirectory() as folder:

        def make(model: Arrays | None = None, **kinds: Kind) -> Federation:
            root = Path(tempfile.mkdtemp(dir=folder))
            return Federation(root, a_model() if model is None else model, kinds)

        yield make


@pytest.fixture(scope="session")
def run_task() -> Callable[..., Ended]:
    return run


@pytest.fixture(scope="session")
def tensors() -> Any:
    """`tensors.write(path, arrays) -> (digest, size)` and `tensors.read(path) -> arrays`."""

    class Tensors:
        write = staticmethod(write_tensors)
        read = staticmethod(read_tensors)

    return Tensors


def a_model() -> dict[str, np.ndarray]:
    """A small model of every kind of tensor that a schema knows."""
    rng = np.random.default_rng(7)
    return {
        "conv.weight": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "fc.weight": rng.normal(size=(10, 64)).astype(np.float32),
        "fc.bias": np.zeros(10, np.float32),
        "bn.running_var": np.ones(8, np.float32),
        "bn.num_batches_tracked": np.array(5, np.int64),
        "mask": np.array([True, False, False]),
        "nothing": np.empty((0, 4), np.float32),
    }


@pytest.fixture
def model() -> dict[str, np.ndarray]:
    return a_model()


@pytest.fixture(scope="session")
def a_delta() -> Callable[..., dict[str, np.ndarray]]:
    """An update of `model` drawn from a seed: small deltas, integers as values."""

    def make(seed: int, model: Arrays | None = None, scale: float = 0.01) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        update = {}
        for name, array in (a_model() if model is None else model).items():
            if array.dtype.kind == "f":
                update[name] = (scale * rng.normal(size=array.shape)).astype(array.dtype)
            elif array.dtype.kind == "b":
                update[name] = rng.random(array.shape) < 0.5
            else:
                update[name] = rng.integers(0, 100, array.shape).astype(array.dtype)
        return update

    return make
