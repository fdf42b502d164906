"""An aggregation by real processes, one for each shard, which a test may kill at any write."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedtrain.contract import SHARD_ENV, AggregateTask, encode_task
from tests.aggregation.conftest import Federation, environment

PROGRAM = """
import os, signal, threading

os.setsid()  # so that whoever works for it dies with it
writes, lock, pwrite = 0, threading.Lock(), os.pwrite

def counted(*args):
    global writes
    with lock:
        writes += 1
        if writes == AT:
            os.killpg(0, signal.SIGKILL)
    return pwrite(*args)

os.pwrite = counted
from fedtrain.aggregation.process import main
code = main()
print("writes:", writes)
raise SystemExit(code)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    output: str

    @property
    def writes(self) -> int:
        return int(self.output.rpartition("writes:")[2])


@contextmanager
def running(
    federation: Federation, task: AggregateTask, shard: int, kill: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """The process of a shard, killed before that write of its own (0: never)."""
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(federation.root, Path(folder) / "message", threads=1)
        variables |= {"FEDTRAIN_TASK": encode_task(task), SHARD_ENV: str(shard)}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("AT", str(kill))],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def aggregated(federation: Federation, task: AggregateTask, kill: tuple[int, ...]) -> list[Ended]:
    """A process for each shard, each killed at a write of its own."""
    with ExitStack() as opened:
        started = [
            opened.enter_context(running(federation, task, shard, number))
            for shard, number in enumerate(kill)
        ]
        outputs = [process.communicate(timeout=60)[0] for process in started]
        return [
            Ended(process.returncode, output)
            for process, output in zip(started, outputs, strict=True)
        ]
