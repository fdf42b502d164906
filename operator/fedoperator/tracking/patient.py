"""A tracker that may be away: asked again later, and complained about once."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.tracking import sending
from fedoperator.tracking.figures import Run
from fedoperator.tracking.sending import Sink, TrackerRefuses, TrackerUnavailable

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
REFUSED_PAUSE = 300.0
"""Seconds: somebody has to do something first."""


@dataclass(frozen=True, slots=True)
class Telling:
    """Where lines go: what happens, and what is wrong."""

    say: Callable[[str], None]
    complain: Callable[[str], None]


class Patient:
    """One tracker, for any number of trainings. It raises nothing."""

    def __init__(self, name: str, sink: Sink, telling: Telling) -> None:
        self.name = name
        self._sink = sink
        self._telling = telling
        self._pause = FIRST_PAUSE
        self._away: str | None = None
        """What was complained about, while it is away."""
        self._not_before = 0.0
        self._refused: dict[str, tuple[float, str]] = {}
        """By training, when to ask again and what was said."""
        self._told: dict[str, str] = {}
        """By training, where it is found."""

    def update(self, training: Training, record_of: Callable[[int], Record | None]) -> bool:
        """Whether the tracker has everything that there is of the training now."""
        again, said = self._refused.get(training.uid, (0.0, ""))
        if time.monotonic() < max(self._not_before, again):
            return False
        try:
            _, where = sending.catch_up(training, record_of, self._sink)
        except TrackerUnavailable as error:
            self._goes(str(error))
            # The others first, should it be this one's doing.
            self._refused[training.uid] = (self._not_before + self._pause, said)
            return False
        except TrackerRefuses as error:
            if str(error) != said:
                self._telling.complain(f"{training.name} is not tracked: {error}")
            self._refused[training.uid] = (time.monotonic() + REFUSED_PAUSE, str(error))
            return False
        self._comes()
        self._refused.pop(training.uid, None)
        if self._told.get(training.uid) != where:
            self._told[training.uid] = where
            self._telling.say(f"{training.name} is tracked by {self.name}: {where}")
        return True

    def abandon(self, run: Run) -> bool:
        """Whether the tracker knows that nobody sends any more of this run."""
        if time.monotonic() < self._not_before:
            return False
        try:
            self._sink.abandon(run)
        except TrackerUnavailable as error:
            self._goes(str(error))
            return False
        except TrackerRefuses:
            pass  # It has deleted what was to be ended.
        self.forget(run.uid)
        return True

    def forget(self, uid: str) -> None:
        """There is no such training any more."""
        self._refused.pop(uid, None)
        self._told.pop(uid, None)

    def _goes(self, sentence: str) -> None:
        if self._away is None:
            self._telling.complain(f"{sentence}; nothing waits for it")
        self._away = sentence
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _comes(self) -> None:
        if self._away is not None:
            self._telling.say(f"{self.name} is there again")
        self._away, self._pause = None, FIRST_PAUSE
