"""The operator's process: started as in a pod, asked for its metrics, watched from /proc."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.federations import watching
from devcluster.replica import ROOT, Replica

TICK = os.sysconf("SC_CLK_TCK")


def processor(pid: int) -> float:
    """Seconds that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> int:
    """Bytes resident now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """At seconds since the epoch: processor seconds used until then, bytes resident."""

    at: float
    processor: float
    memory: int


class Operator(Replica):
    """samples: processor and memory, four a second."""

    def __init__(self, kubeconfig: Path, log: Path, root: Path = ROOT) -> None:
        self.samples: list[Sample] = []
        self.started = time.time()
        super().__init__(kubeconfig, log, root)
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def _sample(self) -> None:
        pid = self.process.pid
        while not self._stop.wait(0.25):
            with contextlib.suppress(OSError, IndexError):
                self.samples.append(Sample(time.time(), processor(pid), memory(pid)))

    def end(self) -> None:
        """Stopped as a rollout does it; killed if that is of no use."""
        self._stop.set()
        self._sampler.join()
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()


@contextlib.contextmanager
def operator(kubeconfig: Path, log: Path, root: Path = ROOT) -> Iterator[Operator]:
    """Ready, and stopped afterwards."""
    running = Operator(kubeconfig, log, root)
    try:
        watching.until(lambda: running.get("/readyz")[0] == 200, 60, "the operator's start")
        yield running
    finally:
        running.end()
