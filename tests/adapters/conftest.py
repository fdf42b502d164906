"""Adapters in small: pairs of factors drawn from a seed, and what they come to, naively."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain import rounds
from fedtrain.aggregation import engine
from fedtrain.contract import (
    ROOT_ENV,
    SCRATCH_ENV,
    TASK_ENV,
    AggregateTask,
    Message,
    ModelRef,
    ParticipantTask,
    encode_task,
    evaluation_folder,
    global_folder,
)
from tests.trainer.conftest import Exchange

Arrays = Mapping[str, np.ndarray]
LAYERS = {"q": (24, 18), "v": (12, 18)}
"""Layer → (out, in)."""


def an_adapter(rank: int, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """fp32 factors of each layer, of which B is not zero, and a bias that has no pair."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {"head.bias": rng.normal(size=5)}
    for layer, (out, within) in LAYERS.items():
        arrays[f"{layer}.lora_A.weight"] = rng.normal(size=(rank, within))
        arrays[f"{layer}.lora_B.weight"] = rng.normal(size=(out, rank))
    return {name: (scale * array).astype(np.float32) for name, array in arrays.items()}


def loaded(adapter: Arrays, rank: int) -> dict[str, np.ndarray]:
    """What a participant of this rank sees of it."""
    part = {}
    for name, array in adapter.items():
        part[name] = array[:rank] if "lora_A" in name else array
        part[name] = part[name][:, :rank] if "lora_B" in name else part[name]
    return part


def product(adapter: Arrays, layer: str) -> np.ndarray:
    """out × in, fp64: what is never formed elsewhere."""
    a, b = (adapter[f"{layer}.lora_{factor}.weight"].astype(np.float64) for factor in "AB")
    return b @ a


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of this rank, by the SVD of the whole matrix."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


class Training:
    """A federation in this process: everybody's turn at `rounds`, and the aggregator's."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, adapters: Any = None) -> None:
        self.exchange, self._patch, self.adapters = Exchange(root), patch, adapters
        self.candidates: list[tuple[str, int]] = []
        self._looks = 0
        self.base: str | None = None
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.setenv(ROOT_ENV, str(self.exchange.root))
        patch.setenv(SCRATCH_ENV, str(root / "scratch"))

    def begin(self, model: Any, rank: int | None = None, **given: Any) -> Path:
        """Publish global/0; its folder."""
        self._perform(self.exchange.init(adapters=self._of(rank), base=self.base))
        assert list(rounds(model, **given)) == []
        return self._counts(global_folder(0, 1))

    def train(
        self,
        name: str,
        model: Any,
        by: Callable[[], None],
        *,
        rank: int | None = None,
        samples: int = 1,
        **task: Any,
    ) -> Path:
        """One round of this participant, in which `by` changes the model; the update's folder."""
        mine = self.exchange.train(name, adapters=self._of(rank), **task)
        self._perform(mine)
        for rnd in rounds(model):
            by()
            rnd.submit(samples=samples)
        self.candidates.append((name, 1))
        return self.exchange.root / mine.output

    def aggregate(self, ranks: Mapping[str, int] | None = None, **said: Any) -> Message:
        assert self.exchange.model is not None
        adapters = {"ranks": ranks or {}, **self.adapters} if self.adapters else None
        task = AggregateTask(
            training="digits",
            uid="0123-4567",
            round=1,
            attempt=1,
            model=self.exchange.model,
            output=global_folder(1, 1),
            candidates=tuple(sorted(self.candidates)),
            minimum=1,
            adapters=adapters,
        )
        message = engine.aggregate(replace(task, **said), self.exchange.root, threads=1)
        self._counts(global_folder(1, 1))
        return message

    def load(self, model: Any, rank: int | None = None) -> None:
        """Have the global model in it, as an evaluation does."""
        number = int(self.folder.parent.name)
        task = self.exchange.evaluate(round=number, adapters=self._of(rank))
        self._looks += 1
        self._perform(replace(task, output=evaluation_folder("north", number, self._looks)))
        assert list(rounds(model, evaluate=lambda _: {"loss": 0.0})) == []

    @property
    def folder(self) -> Path:
        """Of the global model."""
        assert self.exchange.model is not None
        return self.exchange.root / self.exchange.model.path

    def _of(self, rank: int | None) -> dict[str, Any] | None:
        return None if self.adapters is None else {**self.adapters, "rank": rank}

    def _perform(self, task: ParticipantTask) -> None:
        self._patch.setenv(TASK_ENV, encode_task(task))

    def _counts(self, path: str) -> Path:
        manifest = json.loads((self.exchange.root / path / "manifest.json").read_text())
        self.exchange.model = ModelRef(path=path, digest=manifest["digest"])
        return self.exchange.root / path


@pytest.fixture
def a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Training]:
    def make(**adapters: Any) -> Training:
        return Training(tmp_path / "training", monkeypatch, adapters or None)

    return make
