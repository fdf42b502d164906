"""Sleeping until a child ends, somebody wants us to stop, or the time has come."""

import contextlib
import os
import select
import signal
from types import FrameType
from typing import Any, Self

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """A context manager; inside, no signal that arrives between two waits is lost.

    told: the signals that asked us to stop, the first first.
    """

    def __init__(self) -> None:
        self.told: list[int] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in (*_STOP, signal.SIGCHLD):
            ignored = signal.getsignal(number) is signal.SIG_IGN
            if number != signal.SIGHUP or not ignored:  # nohup
                self._previous[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        for end in self._pipe:
            os.close(end)

    def wait(self, seconds: float | None) -> None:
        """Return at the first signal since the last wait, or after so many seconds."""
        select.select([self._pipe[0]], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._pipe[0], 4096):
                pass

    def wake(self) -> None:
        """Let `wait` return; from any thread."""
        with contextlib.suppress(OSError, AttributeError):  # full of wakes, or over
            os.write(self._pipe[1], b"\0")

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self.told.append(number)
