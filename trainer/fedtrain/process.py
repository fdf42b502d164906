"""One command with everything it starts: run, signalled, reaped and ended as a container would.

Standard library only. Made for PID 1; elsewhere (the local shell) it asks to be a subreaper, so
that torchrun's workers, which live in sessions of their own, cannot outlive it either.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Self

from fedtrain.contract import GRACE_ENV, OUTCOME_ENV
from fedtrain.heart import hearts
from fedtrain.outcome import Outcome, collect, was_published

TAIL_BYTES = 16 * 1024
GRACE_SECONDS = 30.0
"""Of Kubernetes and of torchrun, unless the trainer says otherwise."""

LAST_SECONDS = 3.0
"""Of the grace period: for ranks that have not ended, told by way of their torchrun to do so."""

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class Command:
    """One command in a process group of its own, whose descendants all come back to us.

    told: the last signal that was forwarded, or 0. Ranks that save on SIGTERM are told themselves
    and given the grace period: their torchrun would kill them 30 s after it was told. A context
    manager: afterwards no descendant is left, and the signal handlers are what they were.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.told = 0
        self._environment = environment
        self._pid = 0
        self._tail = bytearray()
        self._reader: threading.Thread | None = None
        self._folder: Path | None = None
        self._told = threading.Event()
        self._last_word: threading.Timer | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):  # no writable /tmp: the last lines of stderr must do
            self._folder = Path(tempfile.mkdtemp(prefix="fedtrain-"))
            self._environment[OUTCOME_ENV] = str(self._folder / "outcome")
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._forward)
        with contextlib.suppress(OSError, AttributeError):
            # PID 1 is given orphans anyway; elsewhere (the local shell) this asks for them.
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._last_word is not None:
            self._last_word.cancel()
        _kill_descendants()
        if self._reader is not None:
            self._reader.join(timeout=1.0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, command: list[str]) -> int:
        """Start it and wait for its end; gives its exit code, or minus the signal that killed it.

        Raises OSError if it cannot be started.
        """
        if self.told:
            return -self.told
        actions = []
        if not os.isatty(2):
            ours, theirs = os.pipe()
            actions = [(os.POSIX_SPAWN_DUP2, theirs, 2)]
            self._reader = threading.Thread(target=self._copy, args=(ours,), daemon=True)
            self._reader.start()
        try:
            self._pid = os.posix_spawnp(
                command[0],
                command,
                self._environment,
                file_actions=actions,
                setpgroup=0,
                setsigdef=[signal.SIGPIPE],  # which Python ignores, and children would inherit
            )
        finally:
            if actions:
                os.close(theirs)
        self._pass_on()  # what arrived while the command was being started
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._pid:
                self._pid = 0
                return os.waitstatus_to_exitcode(status)

    @property
    def prefix(self) -> Path | None:
        """Of the files in which the ranks tell us something."""
        return None if self._folder is None else self._folder / "outcome"

    def outcomes(self) -> tuple[Outcome, ...]:
        """What the ranks left, the earliest first."""
        return () if self.prefix is None else collect(self.prefix)

    def kill(self) -> None:
        """End the command at once, hung ranks included; `run` returns."""
        beats = hearts(self.prefix) if self.prefix is not None else {}
        self._signal(signal.SIGKILL, [beat.pid for beat in beats.values()])

    def published(self) -> bool:
        """Whether the command said that it had published something."""
        return self._folder is not None and was_published(self._folder / "outcome")

    def tail(self) -> str:
        """The last text that the command wrote to standard error, if that was no terminal."""
        if self._reader is not None:
            self._reader.join(timeout=1.0)  # a daemon of the script may hold the pipe for ever
        return self._tail.decode(errors="replace")

    def linger(self, seconds: float) -> bool:
        """Sleep; True, and at once, if a signal says that it is time to go."""
        return self._told.wait(seconds)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.told = number
        self._told.set()
        self._pass_on()

    def _pass_on(self) -> None:
        if not self._pid or not self.told:
            return
        beats = hearts(self.prefix) if self.prefix is not None else {}
        saving = [beat.pid for beat in beats.values() if beat.saves]
        again = self._last_word is not None
        if self.told != signal.SIGTERM or not saving or again:
            self._signal(self.told, [])
            return
        for pid in saving:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        grace = float(self._environment.get(GRACE_ENV, GRACE_SECONDS))
        last = max(grace - LAST_SECONDS, grace / 2)
        self._last_word = threading.Timer(last, self._signal, (signal.SIGTERM, []))
        self._last_word.daemon = True
        self._last_word.start()

    def _signal(self, number: int, ranks: list[int]) -> None:
        """Signal the command's process group; and ranks, which torchrun gives their own groups."""
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, number)

    def _copy(self, pipe: int) -> None:
        """Pass standard error on, remembering its end: it may be all that says why."""
        with contextlib.suppress(OSError), open(pipe, "rb", buffering=0) as stream:
            while chunk := stream.read(65536):
                self._tail += chunk
                del self._tail[:-TAIL_BYTES]
                while chunk:
                    chunk = chunk[os.write(2, chunk) :]


def _kill_descendants() -> None:
    """End what the command left behind, as the end of a container does."""
    for _ in range(100):
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        except OSError:
            return
        if not children:
            return
        for child in children:
            with contextlib.suppress(OSError):
                os.kill(int(child), signal.SIGKILL)
                os.waitpid(int(child), 0)
