"""The operator's process: started as in a pod, asked for its metrics, watched from /proc."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.federations import watching

ROOT = Path(__file__).parents[2]
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


class Operator:
    """One replica, of the checkout at `root`. samples: processor and memory, four a second."""

    def __init__(self, kubeconfig: Path, log: Path, root: Path = ROOT) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{root}/operator:{root}/trainer",
            "PYTHONDONTWRITEBYTECODE": "1",
            "KUBECONFIG": str(kubeconfig),
            "FEDTRAIN_CONTROLLER_IMAGE": "controller:1",
            "FEDTRAIN_HOST": "127.0.0.1",
            "FEDTRAIN_PORT": str(self._port),
        }
        self.samples: list[Sample] = []
        self.started = time.time()
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fedoperator"], env=environment, stderr=output, stdout=output
            )
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def _sample(self) -> None:
        pid = self._process.pid
        while not self._stop.wait(0.25):
            with contextlib.suppress(OSError, IndexError):
                self.samples.append(Sample(time.time(), processor(pid), memory(pid)))

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's series, those with `label="value"`; 0 while it serves none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        wanted = rf"{{.*{re.escape(label)}.*}}" if label else "(?:{.*})?"
        found = re.findall(rf"^{re.escape(name)}{wanted} (\S+)$", text, re.M)
        return sum(map(float, found))

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """As a rollout does it: the lease is released."""
        self._stop.set()
        self._sampler.join()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextlib.contextmanager
def operator(kubeconfig: Path, log: Path, root: Path = ROOT) -> Iterator[Operator]:
    """Ready, and stopped afterwards."""
    running = Operator(kubeconfig, log, root)
    try:
        watching.until(running.ready, 60, "the operator's start")
        yield running
    finally:
        running.stop()
