"""A round that is interrupted goes on in the next attempt: to the last bit with as many ranks."""

import contextlib
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain import rounds
from fedtrain.contract import SCRATCH_ENV, TASK_ENV, ModelRef
from fedtrain.errors import ContractError
from fedtrain.looks import Look, Looks, agree
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


def test_a_real_torchrun_does_not_cut_the_saving_short(attempts: Attempts) -> None:
    attempts.write(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", str(attempts.script)]
    env = {"NOISY": "1", "SLOW": "", "SHOW": "5", "PET_NPROC_PER_NODE": "2"}
    running = attempts.start(2, command=command, **env)
    running.wait_for("reached 5", seconds=120)
    running.process.send_signal(signal.SIGTERM)
    ended = running.end(seconds=60)
    assert (ended.code, ended.message.reason) == (75, "Terminated"), ended.log
    (saved,) = attempts.snapshots
    assert f"began with {{'step': {saved.name}}}" in attempts.succeed(2, NOISY="1").log


SHARDED = """\
import hashlib, os
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from fedtrain import collective, midround
from fedtrain.contract import decode_task

if os.environ["SHARD"] == "1":
    dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 1)).to(torch.bfloat16)
if os.environ["SHARD"] == "1":
    fully_shard(model, mesh=dist.init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),)))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
task, ranks = decode_task(os.environ["FEDTRAIN_TASK"]), collective.join(torch_model=True)
middle = midround.of(task, model, ranks, lambda: None)
progress = middle.resume(2, {"optimizer": optimizer})
if not progress:
    for step in (1, 2):
        model(torch.ones(3, 5, dtype=torch.bfloat16)).sum().backward()
        optimizer.step()
        middle.step({"step": step})
states = [s for p in model.parameters() for s in optimizer.state[p].values()]
full = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in (*model.parameters(), *states)]
values = repr([[str(t.dtype), t.double().flatten().tolist()] for t in full]).encode()
if ranks.rank == 0:
    print("progress", progress, sorted({type(state).__name__ for state in states}))
    print("values", len(full), hashlib.sha256(values).hexdigest(), flush=True)
"""


def test_sharded_parameters_and_states_are_found_again_by_any_number_of_ranks(
    attempts: Attempts, exchange: Any
) -> None:
    attempts.script.write_text(SHARDED)
    exchange.model = ModelRef(path="global/0/1", digest="sha256:" + "0" * 64)
    said = []
    for ranks, shard in ((2, "1"), (2, "1"), (1, "1"), (1, "0")):
        log = attempts.run(ranks, SHARD=shard).log
        said.append(re.findall(r"(?:progress|values) .*", log))  # other lines may run into these
        assert len(said[-1]) == 2, log
    assert [lines[0] for lines in said] == [
        "progress {} ['DTensor', 'Tensor']",
        "progress {'step': 2} ['DTensor', 'Tensor']",
        "progress {'step': 2} ['DTensor', 'Tensor']",
        "progress {'step': 2} ['Tensor']",
    ]
    assert len({lines[1] for lines in said}) == 1


class Loader:
    """It knows where it is."""

    def __init__(self) -> None:
        self.drawn = 0

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]


class Interrupted(Exception):
    pass


@pytest.fixture
def site(federation: Any) -> Any:
    """Train a round of an array model in this process; what it began with, and the model."""
    federation.begin()
    attempt = iter(range(1, 100))

    def train(
        number: int = 1, stop: int | None = None, **parts: Any
    ) -> tuple[dict[str, Any], list[float]]:
        model = {"w": np.zeros(4, np.float32)}
        federation.perform(federation.exchange.train(round=number, attempt=next(attempt)))
        progress: dict[str, Any] = {}
        with contextlib.suppress(Interrupted):
            for rnd in rounds(model):
                progress = rnd.resume(every=2, **parts)
                for step in range(progress.get("step", 0), 7):
                    model["w"] += np.float32(random.random()) + np.random.rand(4).astype(np.float32)
                    for part in parts.values():
                        part.drawn += 1
                    rnd.step(step=step + 1)
                    if step + 1 == stop:
                        raise Interrupted
                rnd.submit(samples=1)
        return progress, model["w"].tolist()

    return train


def snapshots(federation: Any) -> list[Path]:
    return sorted(Path(federation.scratch).glob("digits-0123-456/north/midround/*/*"))


def test_a_model_of_arrays_goes_on_with_its_generators_and_parts(
    site: Any, federation: Any
) -> None:
    _, undisturbed = site(loader=Loader())
    site(stop=5, loader=Loader())
    assert [path.name for path in snapshots(federation)] == ["4"]
    loader = Loader()
    assert site(loader=loader) == ({"step": 4}, undisturbed)
    assert loader.drawn == 7
    assert snapshots(federation) == []  # the round is over


def test_signals_are_as_they_were_when_the_round_is_over(site: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for stop in (None, 3):
        site(stop=stop)
        assert signal.getsignal(signal.SIGTERM) is before


def spoil(path: Path) -> None:
    file = path / "rank-0.pickle"
    file.write_bytes(file.read_bytes()[:-1] + b"?")


def edit(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = (path / "snapshot.json").read_text()
        assert old in text
        (path / "snapshot.json").write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        spoil,
        lambda path: (path / "snapshot.json").write_text("{"),
        lambda path: (path / "rank-0.pickle").unlink(),
        edit('"base": "sha256:', '"base": "sha256:0'),
        edit('"version": 1', '"version": 9'),
    ],
    ids=["spoilt", "cut", "lost", "another base", "another version"],
)
def test_a_snapshot_that_is_not_whole_or_not_ours_is_left_with_a_word(
    site: Any, federation: Any, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    site(stop=5)
    damage(snapshots(federation)[0])
    progress, resumed = site()
    assert progress == {}
    assert resumed == site()[1]
    assert "the snapshot of step 4 is not used: " in capsys.readouterr().err


def test_other_parts_than_those_that_were_saved_begin_anew(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    site(stop=5, loader=Loader())
    assert site(sampler=Loader())[0] == {}
    assert "it holds other things than the script hands over: loader" in capsys.readouterr().err


def test_a_snapshot_is_of_one_round(site: Any, federation: Any) -> None:
    site(number=1, stop=5)
    assert site(number=2, stop=5)[0] == {}
    (left,) = snapshots(federation)
    assert left.parent.name.startswith("2-")


def test_a_scratch_that_cannot_be_written_costs_no_more_than_a_word(
    site: Any, federation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, undisturbed = site()
    folder = Path(federation.scratch) / "digits-0123-456/north/midround"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    assert site() == ({}, undisturbed)
    assert "step 4 was not saved: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda rnd: (rnd.resume(), rnd.resume()), "ResumedTwice"),
        (lambda rnd: rnd.resume(every=0), "BadEvery"),
        (lambda rnd: rnd.resume(every=timedelta(0)), "BadEvery"),
        (lambda rnd: rnd.resume(loader=object()), "ResumeUnsupported"),
        (lambda rnd: (rnd.resume(every=1), rnd.step(where={1, 2})), "BadProgress"),
    ],
)
def test_what_cannot_be_meant_is_refused(federation: Any, act: Any, reason: str) -> None:
    federation.begin()
    federation.perform(federation.exchange.train())
    loop = rounds({"w": np.zeros(4, np.float32)})
    with pytest.raises(ContractError) as refused:
        act(next(loop))
    assert refused.value.reason == reason
    loop.close()  # type: ignore[attr-defined]


def test_outside_a_federation_every_call_is_allowed_and_nothing_is_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(TASK_ENV, raising=False)
    monkeypatch.delenv(SCRATCH_ENV, raising=False)
    for rnd in rounds({"w": np.zeros(2, np.float32)}):
        assert rnd.resume(every=1) == {}
        rnd.step(step=1)
        rnd.alive()
        assert rnd.scratch.is_dir()
        rnd.submit(samples=1)


class Pair:
    """Two ranks that say the same thing."""

    rank, world, gathered = 0, 2, 0

    def gather(self, mine: Any) -> list[Any]:
        self.gathered += 1
        return [mine, mine]

    def tell(self, value: Any) -> Any:
        return value


def test_ranks_look_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    ranks = Pair()
    looks = Looks(ranks)
    looks.begin(0)
    for step in range(1, 10_001):
        now[0] += 0.01
        if step >= looks.next:
            looks.look(step, told=False, due=False)
    assert 100 <= ranks.gathered <= 115


def test_ranks_that_step_differently_often_are_told_so() -> None:
    at = [Look(steps=n, told=False, due=False, next=n + 1) for n in (4, 5)]
    with pytest.raises(ContractError, match="rank 0 is at step 4, rank 1 is at step 5"):
        agree(at)
    with pytest.raises(ContractError, match="rank 0 is done, rank 1 is at step 5"):
        agree([object(), at[1]])
    agree([at[0], at[0]])
