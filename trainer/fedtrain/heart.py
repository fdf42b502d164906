"""What a rank shows `fedtrain.launch`, its grandparent, without a word on the network: its heart.

    <folder of FEDTRAIN_OUTCOME>/heart.<rank>     a few numbers, written in place at each step
    <folder of FEDTRAIN_OUTCOME>/stacks.<rank>    where its threads are, when launch asks by signal

A beat is a write to mapped memory, which costs about a microsecond. Standard library only.
"""

import contextlib
import faulthandler
import mmap
import os
import signal
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fedtrain.contract import OUTCOME_ENV

ASK = getattr(signal, "SIGRTMIN", signal.SIGUSR1) + 5
"""Asks a rank for its stacks; a number that scripts leave alone."""

_NUMBERS = struct.Struct("=qQqqqd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """main: the main thread's ident. at: seconds of the machine's monotonic clock.

    watched: whether a rank that shows no new beat for long is a hung one. saves: whether it saves
    on SIGTERM and ends by itself.
    """

    pid: int
    main: int
    steps: int = 0
    watched: bool = False
    saves: bool = False
    at: float = 0.0


class Heart:
    """This process's own. Without launch around it, it beats for nobody."""

    def __init__(self, rank: int) -> None:
        self._memory: mmap.mmap | bytearray = bytearray(_NUMBERS.size)
        self._stacks: IO[Any] | None = None
        self._pid, self._main = os.getpid(), threading.main_thread().ident or 0
        prefix = os.environ.get(OUTCOME_ENV)
        if prefix is None:
            return
        folder = Path(prefix).parent
        with contextlib.suppress(OSError):  # no writable /tmp: nobody can watch us then
            unfinished = folder / f".heart.{rank}"
            unfinished.write_bytes(bytes(_NUMBERS.size))
            with open(unfinished, "r+b") as file:
                self._memory = mmap.mmap(file.fileno(), _NUMBERS.size)
            self.beat(0, watched=False, saves=False)
            unfinished.rename(folder / f"heart.{rank}")
            self._stacks = open(folder / f"stacks.{rank}", "ab", buffering=0)  # noqa: SIM115
            faulthandler.register(ASK, file=self._stacks, all_threads=True)

    def beat(self, steps: int, *, watched: bool, saves: bool) -> None:
        now = time.monotonic()
        numbers = self._pid, self._main, steps, watched, saves, now
        _NUMBERS.pack_into(self._memory, 0, *numbers)

    def close(self) -> None:
        """No longer answer; for a process that goes on without us."""
        if self._stacks is not None:
            faulthandler.unregister(ASK)
            self._stacks.close()


def hearts(prefix: Path) -> dict[int, Beat]:
    """The last beat of each rank of this node, by rank."""
    found = {}
    for path in prefix.parent.glob("heart.*"):
        with contextlib.suppress(OSError, ValueError, struct.error):
            pid, main, steps, watched, saves, at = _NUMBERS.unpack(path.read_bytes())
            found[int(path.suffix[1:])] = Beat(
                pid=pid, main=main, steps=steps, watched=bool(watched), saves=bool(saves), at=at
            )
    return dict(sorted(found.items()))


def stacks(prefix: Path, beats: dict[int, Beat], seconds: float = 2.0) -> dict[int, str]:
    """Where each rank's threads are, in faulthandler's words; "" for one that does not answer."""
    paths = {rank: prefix.parent / f"stacks.{rank}" for rank in beats}
    for rank, beat in beats.items():
        with contextlib.suppress(OSError):
            os.truncate(paths[rank], 0)
            os.kill(beat.pid, ASK)
    until = time.monotonic() + seconds
    before: dict[int, str] = {}
    while True:
        said = {rank: _text(path) for rank, path in paths.items()}
        if (all(said.values()) and said == before) or time.monotonic() >= until:
            return said
        before = said
        time.sleep(0.1)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
