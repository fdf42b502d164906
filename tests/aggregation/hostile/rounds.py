"""Rounds to attack: seven honest participants, as many as Bulyan needs, and one that is not."""

import atexit
import copy
import ctypes
import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.contract import SCHEMA_FILE, global_folder
from tests.aggregation.conftest import Federation, a_model
from tests.aggregation.hostile.encoded import write_encoded
from tests.aggregation.hostile.forgery import Case, Forgery
from tests.aggregation.hostile.layouts import ALIAS

Document = Mapping[str, Any]
HONEST = ("alpha", "bravo", "charlie", "golf", "hotel", "papa", "quebec")
LETTERS = "adhmz"
"""Where the hostile ones' names begin: before, among and after the honest, as the sums go."""

STRATEGIES: tuple[Document, ...] = (
    {"name": "FedAvg"},
    {"name": "FedProx"},
    {"name": "SCAFFOLD"},
    {"name": "FedNova"},
    {"name": "FedAvgM"},
    {"name": "FedAdam"},
    {"name": "FedYogi"},
    {"name": "FedAdagrad"},
    {"name": "DiLoCo"},
    {"name": "Median"},
    {"name": "TrimmedMean"},
    {"name": "Krum"},
    {"name": "MultiKrum"},
    {"name": "Bulyan"},
    {"name": "GeometricMedian"},
    {"name": "CenteredClipping"},
)
OVER_MODES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root's right to read what is locked."""


def an_update(seed: int, scale: float = 0.01) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    update = {}
    for name, array in the_model().items():
        if array.dtype.kind == "f":
            update[name] = (scale * rng.normal(size=array.shape)).astype(array.dtype)
        elif array.dtype.kind == "b":
            update[name] = rng.random(array.shape) < 0.5
        else:
            update[name] = rng.integers(0, 100, array.shape).astype(array.dtype)
    return update


def the_model() -> dict[str, np.ndarray]:
    """Every kind of tensor, and two of one shape."""
    pair = {name: np.ones(4, np.float32) for name in ("left", "right")}
    return {**a_model(), **pair}


def a_round(root: Path, codec: Document | None = None) -> Federation:
    """Sound updates of a model with a tied tensor; the same bytes whenever it is called."""
    return copied(_template(None if codec is None else json.dumps(codec)), root)


def copied(federation: Federation, root: Path) -> Federation:
    """The same round in a folder of its own."""
    shutil.copytree(federation.root, root, dirs_exist_ok=True)
    other = copy.copy(federation)
    other.root, other.candidates = root, list(federation.candidates)
    return other


@functools.cache
def _template(codec: str | None) -> Federation:
    """Published once, since every publication waits for the disk."""
    root = Path(tempfile.mkdtemp(prefix="fedtrain-round-"))
    atexit.register(shutil.rmtree, root)
    federation = Federation(root, the_model(), {"bn.running_var": "buffer"})
    path = root / global_folder(0, 1) / SCHEMA_FILE
    schema = json.loads(path.read_text())
    for entry in schema["tensors"]:
        if entry["name"] == "fc.weight":
            entry["aliases"] = [ALIAS]
    path.write_text(json.dumps(schema))
    for k, name in enumerate(HONEST):
        published_by(federation, name, an_update(k), 3 * k + 1, codec and json.loads(codec))
    return federation


def published_by(
    federation: Federation,
    name: str,
    update: Mapping[str, np.ndarray],
    samples: int = 1000,
    codec: Document | None = None,
) -> Forgery:
    """`name` publishes soundly, so far; encoded, if the round's updates are."""
    if codec is None:
        federation.with_update(name, update, samples=samples)
    else:
        federation.with_file(name, lambda path: write_encoded(path, update, codec))
    others = tuple(federation.folder_of(other) for other in HONEST)
    forgery = Forgery(federation.root, federation.folder_of(name), others)
    if codec is not None:
        forgery.say(codec=codec, samples=samples)
        forgery.sign()
    return forgery


def forged(federation: Federation, name: str, codec: Document | None = None) -> Forgery:
    """An attempt of `name`, to be spoiled."""
    return published_by(federation, name, an_update(99), codec=codec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """verdicts, sentences: by participant. tensors: the bytes of each file that was published."""

    verdicts: Mapping[str, str]
    sentences: Mapping[str, str]
    tensors: Mapping[str, bytes]
    seconds: float


@dataclass
class Attack:
    """A round with spoiled attempts in it, which each strategy may aggregate in its turn."""

    federation: Federation
    cases: Mapping[str, Case]
    runs: int = 0

    @classmethod
    def of(
        cls,
        cases: Iterable[Case],
        root: Path,
        rotation: int = 0,
        codec: Document | None = None,
    ) -> "Attack":
        """rotation: so that one alone comes before, among or after the honest."""
        federation = a_round(root, codec)
        named = {
            f"{LETTERS[(rotation + k) % len(LETTERS)]}-{k}": case for k, case in enumerate(cases)
        }
        for name, case in named.items():
            case.spoil(forged(federation, name, codec))
        return cls(federation, named)

    def aggregate(self, **said: Any) -> Outcome:
        self.runs += 1
        began = time.monotonic()
        with unprivileged():
            message = self.federation.aggregate(output=global_folder(1, self.runs), **said)
        return Outcome(
            verdicts={name: self.federation.verdict_on(name, message) for name in self.cases},
            sentences={
                entry.participant: entry.sentence
                for entry in self.federation.manifest(self.runs).rejected
            },
            tensors=published(self.federation.root, self.runs),
            seconds=time.monotonic() - began,
        )

    def wrong(self, outcome: Outcome) -> list[str]:
        """What was not refused, or not for its reason and with a sentence."""
        return [
            f"a participant whose {case.what}: {outcome.verdicts[name]}, not {set(case.reasons)}"
            for name, case in self.cases.items()
            if outcome.verdicts[name] not in case.reasons or not outcome.sentences.get(name)
        ]


def published(root: Path, n: int) -> dict[str, bytes]:
    """The bytes of the tensors of aggregation `n`: the model, and the server's state if any."""
    folder = root / global_folder(1, n)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@contextmanager
def unprivileged() -> Iterator[None]:
    """As in the aggregator's pod: a file's mode keeps us out, though we are root here.

    Only this thread's right to pass over modes is given up, see capset(2), and taken again.
    """
    version, libc = 0x20080522, ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(version, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; the same, upper halves
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    effective = sets[0]
    try:
        sets[0] = effective & ~OVER_MODES
        libc.capset(header, sets)
        yield
    finally:
        sets[0] = effective
        libc.capset(header, sets)


def removed(root: Path) -> None:
    """Also what is locked, which pytest would stumble over."""
    for folder, folders, _ in os.walk(root):
        for inner in folders:
            path = Path(folder) / inner
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(root)
