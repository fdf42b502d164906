"""A torch model with batch norm and tied weights, through the SDK and every strategy, and back."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fedtrain import rounds
from fedtrain.aggregation import engine
from fedtrain.contract import (
    ROOT_ENV,
    SCRATCH_ENV,
    TASK_ENV,
    AggregateTask,
    ModelRef,
    ParticipantTask,
    Role,
    encode_task,
    global_folder,
    update_folder,
)
from fedtrain.schema import Schema
from fedtrain.strategies import STRATEGIES

pytestmark = pytest.mark.processes

PARTICIPANTS = tuple(f"site-{number}" for number in range(7))  # as many as Bulyan needs
ROUNDS = 2
BUFFERS = ("norm.running_mean", "norm.running_var")


class Tied(nn.Module):
    """The embedding is the output's weight too, with a batch norm in between."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(tokens)))


class Training:
    """Its exchange, and this process in the role of whoever is asked for."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
        self.root, self._patch, self._strategy = root, monkeypatch, strategy
        monkeypatch.setenv(SCRATCH_ENV, str(root / "scratch"))
        self.model = ModelRef(path="", digest="")
        monkeypatch.setenv(ROOT_ENV, str(root))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def begin(self) -> None:
        task = self._task(Role.INIT, 0, PARTICIPANTS[0])
        self._perform(replace(task, output=global_folder(0, 1), model=None))
        manifest = engine.Manifest.from_json((self.root / "global/0/1/manifest.json").read_text())
        self.model = ModelRef(path=global_folder(0, 1), digest=manifest.digest)

    def train(self, number: int, participant: str) -> Tied:
        task = self._task(Role.TRAIN, number, participant)
        return self._perform(replace(task, output=update_folder(participant, number, 1)))

    def aggregate(self, number: int) -> None:
        task = AggregateTask(
            training="tied",
            uid="0123-4567",
            round=number,
            attempt=1,
            model=self.model,
            output=global_folder(number, 1),
            candidates=tuple((name, 1) for name in PARTICIPANTS),
            minimum=1,
            strategy={"name": self._strategy},
            keep_globals=10,
        )
        digest = engine.aggregate(task, self.root, threads=1).result["digest"]
        self.model = ModelRef(path=task.output, digest=digest)

    def _task(self, role: Role, number: int, participant: str) -> ParticipantTask:
        return ParticipantTask(
            role=role,
            training="tied",
            uid="0123-4567",
            round=number,
            participant=participant,
            attempt=1,
            output="",
            model=self.model,
            seed=1,
            strategy=self._strategy,
        )

    def _perform(self, task: ParticipantTask) -> Tied:
        """The script, as a participant would run it; its model in the end."""
        self._patch.setenv(TASK_ENV, encode_task(task))
        torch.manual_seed(0)
        model = Tied()
        for rnd in rounds(model):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            rnd.attach(optimizer)
            for _ in range(1 + PARTICIPANTS.index(rnd.participant)):
                tokens = torch.randint(0, 16, (32,))
                loss = nn.functional.cross_entropy(model(tokens), (tokens + 1) % 16)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            rnd.submit(samples=10)
        return model


@pytest.mark.parametrize("name", STRATEGIES)
def test_buffers_and_tied_weights_come_through_every_strategy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path, monkeypatch, name)
    training.begin()
    for number in range(1, ROUNDS + 1):
        locals_ = [training.train(number, name).state_dict() for name in PARTICIPANTS]
        training.aggregate(number)
        folder = tmp_path / training.model.path
        result = load_file(folder / "model.safetensors")
        assert all(torch.isfinite(t).all() for t in result.values() if t.is_floating_point())
        for buffer in BUFFERS:
            theirs = np.stack([state[buffer].numpy() for state in locals_])
            mean = result[buffer].numpy()
            assert (mean >= theirs.min(0) - 1e-6).all(), buffer
            assert (mean <= theirs.max(0) + 1e-6).all(), buffer
        tracked = [int(state["norm.num_batches_tracked"]) for state in locals_]
        assert int(result["norm.num_batches_tracked"]) == max(tracked)
        assert not {"embedding.weight", "head.weight"} <= result.keys()
        schema = Schema.from_json((folder / "schema.json").read_text())
        tied = next(spec for spec in schema.tensors if spec.aliases)
        assert {tied.name, *tied.aliases} == {"embedding.weight", "head.weight"}
    loaded = training.train(ROUNDS + 1, PARTICIPANTS[0])
    assert loaded.head.weight is loaded.embedding.weight
