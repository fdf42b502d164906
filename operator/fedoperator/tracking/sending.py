"""Bringing a tracker up to date with a training, from wherever it was."""

from collections.abc import Callable
from typing import Protocol

from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.tracking import figures
from fedoperator.tracking.figures import Run, Step


class TrackerUnavailable(Exception):
    """The tracker does not answer, or not now: the same will be sent later. One sentence."""


class TrackerRefuses(Exception):
    """The tracker will not take this training as it is. One sentence, with the remedy."""


class Sink(Protocol):
    """A tracker. Everything may be repeated; all raise TrackerUnavailable and TrackerRefuses."""

    def begin(self, run: Run) -> int:
        """The number of the first step that is not there as a whole; makes the run if need be."""

    def send(self, run: Run, step: Step) -> None:
        """The next step, as a whole."""

    def settle(self, run: Run) -> str:
        """How the run stands, its parameters and tags; where a user finds it."""

    def abandon(self, run: Run) -> None:
        """Nobody will send any more, though it was not over."""


def catch_up(
    training: Training, record_of: Callable[[int], Record | None], sink: Sink
) -> tuple[int, str]:
    """Send every round that is over and not there yet; how many, and where a user finds them.

    record_of: the FederatedRound of that number, None if it is gone. Rounds go in order: one that
    is not over holds up those after it, so that the last step says how far it is.
    """
    run, status, sent = figures.run(training), training.status, 0
    oldest = max(0, status.round - training.spec.history + 1)
    for number in range(max(sink.begin(run), oldest), status.round + 1):
        record = record_of(number)
        if record is None:
            continue
        if not figures.is_over(training, record):
            break
        try:
            sink.send(run, figures.step(training, record))
        except (ArithmeticError, AssertionError, TypeError, ValueError) as error:
            what = f"round {number} holds what cannot be sent ({error})"
            raise TrackerRefuses(f"{what}; delete that FederatedRound to go on") from error
        sent += 1
    return sent, sink.settle(run)
