"""A round that is interrupted goes on in the next attempt: to the last bit with as many ranks."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.contract import SCRATCH_ENV
from fedtrain.tensorfile import TensorFile

pytestmark = pytest.mark.processes

SCRIPT = """\
import os, signal, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from fedtrain import rounds

STEPS, BATCH = 24, 8
torch.manual_seed(0)
noisy = os.environ.get("NOISY") == "1"       # what another number of ranks would draw otherwise
model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5 * noisy),
                      nn.Linear(16, 1))
for rnd in rounds(model):
    rank, world = dist.get_rank(), dist.get_world_size()
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(ddp.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.7)
    x = torch.randn(STEPS * BATCH, 6, generator=torch.Generator().manual_seed(rnd.seed))
    y = x.sum(1, keepdim=True)
    progress = rnd.resume(optimizer=optimizer, scheduler=scheduler, every=4)
    ddp.train()
    model[1].train(noisy)
    if rank == 0:
        print("began with", progress, flush=True)
    for step in range(progress.get("step", 0), STEPS):
        own = slice(step * BATCH + rank, (step + 1) * BATCH, world)
        loss = functional.mse_loss(ddp(x[own]), y[own])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        rnd.step(step=step + 1)
        if rank == 0 and step + 1 == int(os.environ.get("SHOW", -1)):
            print("reached", step + 1, flush=True)
        if step + 1 == int(os.environ.get("KILL", -1)) and rank == world - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if "SLOW" in os.environ:
            time.sleep(0.05)
    rnd.submit(samples=len(x), steps=STEPS)
"""


class Attempts:
    """Attempts of participant north at one round, on a scratch that stays."""

    def __init__(self, exchange: Any, folder: Path, forkrun: Callable[[int, Path], Any]) -> None:
        self.exchange, self.scratch, self.forkrun = exchange, folder / "scratch", forkrun
        self.script = folder / "train.py"
        self.number = 0

    def write(self, text: str) -> None:
        self.script.write_text(text)
        init = self.exchange.run(self.forkrun(1, self.script), self.exchange.init())
        assert init.code == 0, init.log
        from fedtrain.contract import ModelRef

        self.exchange.model = ModelRef(path="global/0/1", digest=init.message.result["digest"])

    def start(self, ranks: int, *, command: Any = None, **env: str) -> Any:
        self.number += 1
        task = self.exchange.train(attempt=self.number)
        variables = {SCRATCH_ENV: str(self.scratch), **env}
        return self.exchange.start(command or self.forkrun(ranks, self.script), task, env=variables)

    def run(self, ranks: int, **env: str) -> Any:
        return self.start(ranks, **env).end()

    def succeed(self, ranks: int, **env: str) -> Any:
        """The log, and what was published."""
        ended = self.run(ranks, **env)
        assert ended.code == 0, ended.log
        return ended

    @property
    def digest(self) -> str:
        """Of the last attempt's update."""
        task = self.exchange.train(attempt=self.number)
        return str(self.exchange.receipt(task).digest)

    def update(self) -> dict[str, Any]:
        task = self.exchange.train(attempt=self.number)
        with TensorFile.open(self.exchange.root / task.output / "update.safetensors") as file:
            return {name: file.read(name).astype(np.float64) for name in file.tensors}

    @property
    def snapshots(self) -> list[Path]:
        return sorted(self.scratch.glob("digits-0123-456/north/midround/*/*"))


@pytest.fixture
def attempts(exchange: Any, tmp_path: Path, forkrun: Any) -> Attempts:
    return Attempts(exchange, tmp_path, forkrun)


def test_killed_or_told_to_stop_and_resumed_by_as_many_ranks_the_bits_are_the_same(
    attempts: Attempts,
) -> None:
    attempts.write(SCRIPT)
    attempts.succeed(2, NOISY="1")
    undisturbed = attempts.digest
    assert attempts.snapshots == []

    killed = attempts.run(2, NOISY="1", KILL="14")
    assert (killed.code, killed.message.reason) == (75, "ScriptKilled"), killed.log
    resumed = attempts.succeed(2, NOISY="1")
    assert "began with {'step': 12}" in resumed.log
    assert attempts.digest == undisturbed
    assert attempts.snapshots == []

    running = attempts.start(2, NOISY="1", SLOW="", SHOW="5")
    running.wait_for("reached 5")
    running.process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    ended = running.end(seconds=20)
    assert time.monotonic() - told < 10
    assert (ended.code, ended.message.reason) == (75, "Terminated"), ended.log
    assert "the next attempt goes on from there" in ended.message.message
    (saved,) = attempts.snapshots
    resumed = attempts.succeed(2, NOISY="1")
    assert f"began with {{'step': {saved.name}}}" in resumed.log
    assert attempts.digest == undisturbed


def test_another_number_of_ranks_goes_on_within_rounding(attempts: Attempts) -> None:
    attempts.write(SCRIPT)
    attempts.succeed(1)
    undisturbed = attempts.update()
    for before, after in ((2, 1), (1, 2)):
        assert attempts.run(before, KILL="14").code == 75
        resumed = attempts.succeed(after)
        assert "began with {'step': 12}" in resumed.log
        for name, delta in attempts.update().items():
            difference = np.linalg.norm(delta - undisturbed[name])
            assert difference <= 1e-4 * np.linalg.norm(undisturbed[name]), name
