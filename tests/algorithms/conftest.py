"""Whole rounds in this process: every participant's script by turns, then the aggregator."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain import Round, rounds
from fedtrain.aggregation import engine
from fedtrain.contract import (
    ROOT_ENV,
    SCRATCH_ENV,
    TASK_ENV,
    AggregateTask,
    ModelRef,
    ParticipantTask,
    Receipt,
    Role,
    encode_task,
    global_folder,
    update_folder,
)
from fedtrain.manifest import Manifest
from fedtrain.tensorfile import TensorFile

Script = Callable[[Iterator[Round]], None]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    with TensorFile.open(path) as file:
        return {name: file.read(name).reshape(info.shape) for name, info in file.tensors.items()}


@dataclass
class Training:
    """A federation of these participants, with this document of a strategy."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    participants: Sequence[str]
    strategy: Mapping[str, Any]
    round: int = 0
    model: ModelRef | None = None
    attempts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        self.monkeypatch.setenv(ROOT_ENV, str(self.root / "exchange"))
        self.monkeypatch.setenv(SCRATCH_ENV, str(self.root / "scratch"))
        (self.root / "exchange").mkdir(parents=True)

    def begin(self, model: Any) -> "Training":
        """This model is global/0."""
        self._perform(Role.INIT, self.participants[0], 1, global_folder(0, 1))
        assert list(rounds(model)) == []
        self._published(global_folder(0, 1))
        return self

    def train(
        self, name: str, model: Any, script: Callable[[Round], None], **given: Any
    ) -> Receipt:
        """One participant's next attempt of the round to come; `script` is the body of its loop."""
        attempt = self.attempts[name] = self.attempts.get(name, 0) + 1
        output = update_folder(name, self.round + 1, attempt)
        self._perform(Role.TRAIN, name, attempt, output)
        for rnd in rounds(model, **given):
            script(rnd)
        text = (self.root / "exchange" / output / "receipt.json").read_text()
        return Receipt.from_json(text)

    def aggregate(self, candidates: Sequence[str], **said: Any) -> None:
        """The next global model, of these participants' last attempts."""
        assert self.model is not None
        self.round += 1
        task = AggregateTask(
            training="t",
            uid="0123-4567",
            round=self.round,
            attempt=1,
            model=self.model,
            output=global_folder(self.round, 1),
            candidates=tuple((name, self.attempts[name]) for name in sorted(candidates)),
            minimum=1,
            population=len(self.participants),
            strategy=self.strategy,
            keep_globals=100,
            **said,
        )
        engine.aggregate(task, self.root / "exchange", threads=1)
        self.attempts = {}
        self._published(task.output)

    def tensors(self, file: str = "model.safetensors") -> dict[str, np.ndarray]:
        """Of the global model."""
        assert self.model is not None
        return read_tensors(self.root / "exchange" / self.model.path / file)

    def kept(self, name: str, file: str, number: int, attempt: int = 1) -> dict[str, np.ndarray]:
        """What a participant keeps of a round's attempt."""
        state = self.root / "scratch" / "t-0123-456" / name / "state"
        return read_tensors(state / f"{number}-{attempt}" / file)

    def _published(self, path: str) -> None:
        text = (self.root / "exchange" / path / "manifest.json").read_text()
        self.model = ModelRef(path=path, digest=Manifest.from_json(text).digest)

    def _perform(self, role: Role, name: str, attempt: int, output: str) -> None:
        task = ParticipantTask(
            role=role,
            training="t",
            uid="0123-4567",
            round=self.round + (role is Role.TRAIN),
            participant=name,
            attempt=attempt,
            output=output,
            model=self.model,
            proximal=float(self.strategy.get("mu", 0)),
            strategy=str(self.strategy["name"]) if role is Role.TRAIN else "FedAvg",
        )
        self.monkeypatch.setenv(TASK_ENV, encode_task(task))


@pytest.fixture
def a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Training]:
    def make(participants: Sequence[str], **strategy: Any) -> Training:
        return Training(tmp_path / "t", monkeypatch, participants, strategy)

    return make
