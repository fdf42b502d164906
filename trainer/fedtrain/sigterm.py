"""SIGTERM as something to ask for, rather than the end: the process decides when to heed it."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class Sigterm:
    """told: whether it has come since `hear`. A second one ends the process as it always did."""

    def __init__(self) -> None:
        self.told = False
        self.heard = False
        self._pid = os.getpid()
        self._previous: Any = None

    def hear(self) -> None:
        """From here on only remember it; nothing outside the main thread, where Python has none."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._come)
            self.heard = True

    def let_go(self, *, heed: bool) -> None:
        """What was there before `hear` counts again. heed: for one that has come meanwhile, too."""
        if self.heard and threading.current_thread() is threading.main_thread():
            self.heard = False
            signal.signal(signal.SIGTERM, self._previous)
            if self.told and heed:
                signal.raise_signal(signal.SIGTERM)

    def _come(self, number: int, frame: FrameType | None) -> None:
        # What was forked from us, a loader's worker, has inherited this and must end at once.
        if self.told or os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.told = True
