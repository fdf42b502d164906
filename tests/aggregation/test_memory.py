"""The aggregator's memory is bounded, whatever the number and the size of the updates.

Its process and its children run under a hard limit of the kernel: a memory cgroup where we may make
one (page cache counts there too, but is given back before anybody is killed), else RLIMIT_DATA,
which counts private memory only, though of each process by itself.
"""

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.contract import AggregateTask, encode_task, global_folder

pytestmark = pytest.mark.processes

MIB = 1024 * 1024
PROMISED = 512 * MIB
HOPED = 256 * MIB
TRAINER = Path(__file__).parents[2] / "trainer"
CGROUPS = Path("/sys/fs/cgroup")

Make = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Limit:
    """A hard limit; `why` says what enforces it. procs: where a process enters the cgroup."""

    nbytes: int
    why: str
    procs: Path | None = None

    def enter(self) -> None:
        """In the child, before its program is loaded."""
        if self.procs is None:
            resource.setrlimit(resource.RLIMIT_DATA, (self.nbytes, self.nbytes))
        else:
            self.procs.write_text(str(os.getpid()))


@pytest.fixture
def a_limit() -> Iterator[Make]:
    with contextlib.ExitStack() as made:
        yield lambda nbytes: made.enter_context(_limit(nbytes))


@contextlib.contextmanager
def _limit(nbytes: int) -> Iterator[Limit]:
    version_1 = (CGROUPS / "memory", "memory.limit_in_bytes")
    version_2 = (CGROUPS, "memory.max")
    parent, file = version_1 if version_1[0].is_dir() else version_2
    group = parent / f"fedtrain-test-{os.getpid()}-{nbytes}"
    try:
        group.mkdir()
    except OSError as error:
        yield Limit(nbytes, f"RLIMIT_DATA, for no memory cgroup can be made: {error}")
        return
    try:
        try:
            (group / file).write_text(str(nbytes))
        except OSError as error:
            yield Limit(nbytes, f"RLIMIT_DATA, for {file} cannot be set: {error}")
        else:
            yield Limit(nbytes, f"{group / file}", group / "cgroup.procs")
    finally:
        _removed(group)


def _removed(group: Path) -> None:
    """The kernel keeps a cgroup for a moment after its last process."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)
    group.rmdir()


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    output: str
    anonymous: int
    """The most that the process and its children had at once; sampled every 5 ms."""


def run(command: list[str], limit: Limit, variables: Mapping[str, str] | None = None) -> Ended:
    anonymous = 0
    with subprocess.Popen(
        command,
        env={**os.environ, **(variables or {})},
        preexec_fn=limit.enter,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while process.poll() is None:
            anonymous = max(anonymous, _anonymous(process.pid))
            time.sleep(0.005)
        output = process.stdout.read() if process.stdout else ""
    return Ended(process.returncode, output, anonymous)


def _anonymous(pid: int) -> int:
    """RssAnon of a process and its children; 0 of one that is gone."""
    whole = 0
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [str(pid), *children]:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{one}/status").read_text().splitlines():
                    if line.startswith("RssAnon:"):
                        whole += int(line.split()[1]) * 1024
    return whole


def aggregate(task: AggregateTask, root: Path, limit: Limit) -> Ended:
    variables = {
        "PYTHONPATH": str(TRAINER),
        "FEDTRAIN_TASK": encode_task(task),
        "FEDTRAIN_ROOT": str(root),
        "FEDTRAIN_TERMINATION_LOG": str(root / "message"),
        "FEDTRAIN_THREADS": "2",
    }
    return run([sys.executable, "-m", "fedtrain.aggregation"], limit, variables)


def a_large_model(nbytes: int) -> dict[str, np.ndarray]:
    """Of two tensors, one of them nearly all of it, as an embedding can be."""
    count = nbytes // 4
    return {
        "embedding": np.zeros(count - count // 8, np.float32),
        "head": np.zeros(count // 8, np.float32),
    }


@pytest.fixture(scope="module")
def few_large(a_federation: Make) -> Any:
    """8 updates of 50 MB: no two thirds of them fit under the limit that is hoped for."""
    return _federation(a_federation, updates=8, nbytes=50_000_000)


@pytest.fixture(scope="module")
def many_small(a_federation: Make) -> Any:
    """64 updates of 6 MB, as many as the promise names."""
    return _federation(a_federation, updates=64, nbytes=6_000_000)


def _federation(a_federation: Make, updates: int, nbytes: int) -> Any:
    model = a_large_model(nbytes)
    federation = a_federation(model)
    noise = np.random.default_rng(7).normal(scale=0.01, size=1 << 16).astype(np.float32)
    for number in range(updates):
        delta = {
            name: np.resize(np.roll(noise, number), array.size) for name, array in model.items()
        }
        federation.with_update(f"p{number:02}", delta, samples=number + 1)
    return federation


def test_the_limit_is_hard(a_limit: Make) -> None:
    """A process that takes more does not get it; otherwise the tests below would prove nothing."""
    takes = f"import numpy; numpy.ones({HOPED // 8 * 5 // 4}).sum(); print('survived')"
    limit = a_limit(HOPED)
    ended = run([sys.executable, "-c", takes], limit)
    assert ended.code != 0, limit.why
    assert "survived" not in ended.output


STRATEGIES: list[dict[str, Any]] = [
    {"name": "FedAvg"},
    {"name": "FedAdam"},
    {"name": "Median"},
    {"name": "MultiKrum", "byzantine": 1},
    {"name": "CenteredClipping"},
]


@pytest.mark.parametrize("precision", ["Float32", "Float64", "Exact"])
def test_large_updates_are_aggregated_in_constant_memory(
    few_large: Any, a_limit: Make, precision: str
) -> None:
    limit = a_limit(HOPED)
    task = few_large.task(output=global_folder(1, _numbers(precision)), precision=precision)
    ended = aggregate(task, few_large.root, limit)
    assert ended.code == 0, (limit.why, ended.output)
    assert ended.anonymous <= HOPED


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda document: document["name"])
def test_many_updates_are_aggregated_within_the_promise(
    many_small: Any, a_limit: Make, strategy: dict[str, Any]
) -> None:
    limit = a_limit(PROMISED)
    task = many_small.task(output=global_folder(1, _numbers(strategy["name"])), strategy=strategy)
    ended = aggregate(task, many_small.root, limit)
    assert ended.code == 0, (limit.why, ended.output)
    assert ended.anonymous <= PROMISED


def _numbers(name: str) -> int:
    """Each aggregation of a round has a number of its own."""
    names = ["Float32", "Float64", "Exact", *(document["name"] for document in STRATEGIES)]
    return names.index(name) + 1
