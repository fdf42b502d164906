"""Processes of a measurement: begun in a session of their own, limited, summed up, and ended.

Linux only: this process becomes the one that orphans fall to (PR_SET_CHILD_SUBREAPER), so that
everything a system starts, and whatever that starts, is below us until it is gone.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_PAGE = os.sysconf("SC_PAGE_SIZE")


class TooLong(Exception):
    """A system did not end within its task's limit."""


def descendants() -> list[int]:
    """The pids of all processes below this one."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, queue = [], [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


class Watch:
    """A context manager: `peak` is the most resident memory that our descendants had together.

    Pages that several share are counted for each of them. Leaving it ends all descendants, after
    which `processor` is the seconds of processor that they took.
    """

    def __init__(self) -> None:
        self.peak = 0
        self.processor = 0.0
        self._before = _processor_of_the_reaped()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        end()
        self.processor = _processor_of_the_reaped() - self._before

    def _sample(self) -> None:
        while not self._stop.wait(0.1):
            total = 0
            for pid in descendants():
                with contextlib.suppress(OSError):
                    total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
            self.peak = max(self.peak, total)


def end(grace: float = 15.0) -> None:
    """SIGTERM, then SIGKILL, to everything below us; returns when nothing is left."""
    begun = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + grace
        while (pids := descendants()) and time.monotonic() < until:
            if time.monotonic() - begun < 0.1 or number == signal.SIGKILL:
                for pid in pids:
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)
            _reap()
            time.sleep(0.1)


def _processor_of_the_reaped() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@contextlib.contextmanager
def log(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def start(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], name: str
) -> "subprocess.Popen[bytes]":
    """In `folder`, its output in `name`.log there."""
    with log(folder / f"{name}.log") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def until(condition: Callable[[], bool], limit: float, what: str) -> None:
    """Wait for it. Raises TooLong."""
    last = time.monotonic() + limit
    while not condition():
        if time.monotonic() > last:
            raise TooLong(f"{what} took more than {limit:.0f} s")
        time.sleep(0.02)
