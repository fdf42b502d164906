"""A rank that makes no progress is named and ended, not waited for."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fedtrain import hang
from fedtrain.contract import HANG_ENV
from fedtrain.hang import guilty, sentence_of, suspects
from fedtrain.heart import Beat, Heart, hearts, stacks

pytestmark = pytest.mark.processes

SCRIPT = """\
import os, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from fedtrain import rounds

def read_batch(rank, step):
    if rank == 1 and step == 3:
        print("pid", os.getpid(), flush=True)
        time.sleep(float(os.environ["SLEEP"]))
    return torch.ones(2, 4)

torch.manual_seed(0)
model = nn.Linear(4, 1)
for rnd in rounds(model):
    rank = dist.get_rank()
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    if "LATE" in os.environ:
        time.sleep(3)                              # no step yet: nobody is watched
    for step in range(5):
        loss = ddp(read_batch(rank, step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rnd.step(step=step)
    rnd.submit(samples=2)
"""


def beat(steps: int = 3, at: float = 0.0, **fields: Any) -> Beat:
    return Beat(pid=os.getpid(), main=0xA, steps=steps, watched=True, at=at, **fields)


def stack(*frames: str, main: str = "0x000000000000000a") -> str:
    other = (
        'Thread 0x000000000000000b (most recent call first):\n  File "/x/pin.py", line 1 in run\n'
    )
    lines = "\n".join(f"  File {frame}" for frame in frames)
    return f"{other}\nCurrent thread {main} (most recent call first):\n{lines}\n"


BACKWARD = '"/v/site-packages/torch/autograd/graph.py", line 9 in _engine_run_backward'
GATHER = '"/v/site-packages/torch/distributed/distributed_c10d.py", line 5 in all_gather'
READING = '"/v/site-packages/numpy/npyio.py", line 7 in load'
SCRIPT_LINE = '"/code/train.py", line 30 in read_batch'


def test_nobody_is_suspected_before_the_timeout_and_then_all_who_stand_still() -> None:
    beats = {0: beat(at=100.0), 1: beat(at=99.8), 2: beat(at=108.0)}
    assert suspects(beats, now=109.0, timeout=10.0) == {}
    assert set(suspects(beats, now=109.9, timeout=10.0)) == {0, 1}


def test_who_was_never_watched_or_submits_is_not_suspected() -> None:
    submits = Beat(pid=1, main=1, steps=9, watched=False, at=0.0)
    assert suspects({0: submits}, now=1e6, timeout=1.0) == {}


@pytest.mark.parametrize(
    ("beats", "stacks", "rank"),
    [
        # The others are inside a collective.
        ({0: beat(), 1: beat(at=0.1)}, {0: stack(BACKWARD), 1: stack(READING, SCRIPT_LINE)}, 1),
        ({0: beat(at=0.2), 1: beat()}, {0: stack(READING), 1: stack(GATHER)}, 0),
        # It is a step behind.
        ({0: beat(4), 1: beat(3)}, {0: stack(READING), 1: stack(READING)}, 1),
        # It does not even answer.
        ({0: beat(), 1: beat()}, {0: stack(BACKWARD), 1: ""}, 1),
        # All wait for somebody who is not here.
        ({0: beat(), 1: beat()}, {0: stack(BACKWARD), 1: stack(GATHER)}, None),
    ],
)
def test_the_rank_that_the_others_wait_for_is_the_guilty_one(
    beats: dict[int, Beat], stacks: dict[int, str], rank: int | None
) -> None:
    assert guilty(beats, stacks) == rank


def test_the_sentence_names_rank_time_step_and_place() -> None:
    beats = {0: beat(at=70.0), 1: beat(at=70.0)}
    stacks = {0: stack(BACKWARD), 1: stack(READING, SCRIPT_LINE)}
    assert sentence_of(1, beats, stacks, now=100.0) == (
        "rank 1 has made no step for 30 s, since step 3: it is at npyio.py:7 (load), called from "
        "train.py:30 (read_batch); waiting for it: rank 0"
    )


def test_a_heart_beats_into_a_file_that_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDTRAIN_OUTCOME", str(tmp_path / "outcome"))
    heart = Heart(3)
    heart.beat(41, watched=True, saves=True)
    ((rank, last),) = hearts(tmp_path / "outcome").items()
    assert (rank, last.steps, last.watched, last.saves) == (3, 41, True, True)
    assert last.pid == os.getpid()
    assert 0 <= time.monotonic() - last.at < 5
    (where,) = stacks(tmp_path / "outcome", {3: last}).values()
    assert "test_hang.py" in where
    heart.close()


@pytest.fixture
def started(exchange: Any, forkrun: Any, tmp_path: Path) -> Any:
    """Start two ranks of which rank 1 sleeps before its fourth step."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    init = exchange.run(forkrun(1, script), exchange.init(), env={"SLEEP": "0"})
    assert init.code == 0, init.log
    from fedtrain.contract import ModelRef

    exchange.model = ModelRef(path="global/0/1", digest=init.message.result["digest"])
    return lambda **env: exchange.start(forkrun(2, script), exchange.train(), env=env)


def test_a_hung_rank_is_named_with_the_line_it_is_at(started: Any) -> None:
    ended = started(SLEEP="600", **{HANG_ENV: "2"}).end(seconds=60)
    assert (ended.code, ended.message.reason) == (75, "RankHung"), ended.log
    assert ended.message.message.startswith("rank 1 has made no step for "), ended.message
    assert "since step 3: it is at train.py:11 (read_batch)" in ended.message.message
    assert ended.message.message.endswith("waiting for it: rank 0")
    assert "fedtrain: rank 0 is at" in ended.log  # the stacks of all are in the log


def test_a_stopped_process_is_named_though_it_cannot_answer(started: Any) -> None:
    running = started(SLEEP="600", **{HANG_ENV: "2"})
    running.wait_for("pid ")
    pid = int(running.log().partition("pid ")[2].split()[0])
    os.kill(pid, signal.SIGSTOP)
    ended = running.end(seconds=60)
    assert ended.message.reason == "RankHung", ended.log
    assert "rank 1" in ended.message.message
    assert "it does not answer (state T (stopped))" in ended.message.message


def test_what_is_slow_before_the_first_step_or_shorter_than_the_timeout_is_no_hang(
    started: Any,
) -> None:
    ended = started(SLEEP="0.5", LATE="1", **{HANG_ENV: "2"}).end(seconds=60)
    assert ended.code == 0, ended.log


def test_another_nodes_own_launch_speaks_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose ranks all wait ends by itself only after a while."""
    ended: list[float] = []
    monkeypatch.setattr(hang, "ELSEWHERE_SECONDS", 1.5)
    monkeypatch.setattr(hang.heart, "hearts", lambda _: {0: beat(at=began)})
    monkeypatch.setattr(hang.heart, "stacks", lambda *_: {0: stack(BACKWARD)})
    began = time.monotonic()
    watch = hang.Watch(tmp_path, 0.5, 2, lambda: ended.append(time.monotonic()))
    with watch:
        while not ended and time.monotonic() - began < 20:
            time.sleep(0.05)
    assert ended[0] - began >= 2.0
    assert watch.verdict is not None
    assert watch.verdict.message.reason == "RankHung"
