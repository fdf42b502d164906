"""Processes as a kubelet would treat them: started apart, and ended with everything they started.

Each carries a mark in its environment, which whatever it starts inherits. The mark, unlike a pid,
is never anybody else's: after a SIGKILL of `fedtrain run` the next run finds by it what is left,
in whichever session and under whichever parent. Without /proc (macOS) only signals remain.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "FEDTRAIN_LOCAL"
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One process to start: what, with which environment, where, and the file for its output."""

    arguments: Sequence[str]
    environment: dict[str, str]
    folder: Path
    log: Path


def start(command: Command, mark: str) -> subprocess.Popen[bytes]:
    """Start it in a session of its own. Raises OSError.

    Only to be called from the main thread: the kernel signals the *thread's* children when that
    ends. What runs between fork and exec is Python, but takes no lock that a thread may hold.
    """
    with command.log.open("ab") as log:
        return subprocess.Popen(
            command.arguments,
            env={**command.environment, MARK: mark},
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_tell_when_parent_dies(os.getpid()),
        )


def _tell_when_parent_dies(parent: int) -> Callable[[], None] | None:
    """On Linux: ask for a SIGTERM, which `fedtrain.launch` forwards, should we be killed."""
    libc = _LIBC
    if libc is None:
        return None

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def marked(mark: str) -> list[int]:
    """The pids of all processes whose mark is this one or lies below it, but not our own."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            for variable in path.read_bytes().split(b"\0"):
                if variable == wanted or variable.startswith(wanted + b"/"):
                    found.append(int(path.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def kill(mark: str, wait: float = 5.0) -> int:
    """SIGKILL everything marked, until nothing is left or for `wait` seconds; how many it met."""
    met: set[int] = set()
    until = time.monotonic() + wait
    while (pids := marked(mark)) and time.monotonic() < until:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        met |= set(pids)
        time.sleep(0.02)
    return len(met)
