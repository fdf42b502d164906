"""What `fedtrain watch` tells of a training, one look after another; it knows no cluster."""

from collections.abc import Callable

import pydantic

from fedoperator.api.round import Record, record_name
from fedoperator.api.status import Phase
from fedoperator.api.training import Training
from fedoperator.local import report, visible
from fedoperator.local.report import Report

_EARLIER = 10
"""Rounds that were over before anybody watched and are told all the same."""
_AT_WORK: frozenset[Phase] = frozenset({"Training", "Aggregating", "Evaluating", "Personalizing"})
"""Phases of every round, of which a line each would only be noise."""


class Follower:
    """Turns looks at a training into lines. record_of: a FederatedRound by name, if it exists."""

    def __init__(self, telling: Report, record_of: Callable[[str], Record | None]) -> None:
        self._report = telling
        self._record_of = record_of
        self._last: Training | None = None
        self._next_round = 0

    def look(self, training: Training) -> int | None:
        """Tell what is new; the exit code once the training is over."""
        status = training.status
        if self._last is None:
            self._next_round = max(1, status.round - _EARLIER)
            self._report.say(f"{training.name}: {status.phase}, {status.progress or '0 rounds'}")
        elif self._last.uid != training.uid:
            self._report.say(f"{training.name} was deleted and made again")
            self._next_round = 1
        self._rounds(training)
        before = self._last.status if self._last is not None else None
        if before is None or _news(before.phase, before.message) != _news(
            status.phase, status.message
        ):
            self._phase(training, first=before is None)
        self._last = training
        # The record of a thousand participants is large: read where somebody looks at it.
        of_now = record_name(training.name, training.status.round)
        self._report.show(training, self._record_of(of_now) if self._report.moves else None)
        return {"Succeeded": 0, "Failed": 1}.get(status.phase)

    def _rounds(self, training: Training) -> None:
        """A line for each round of which everything is known now."""
        while self._next_round <= training.status.round:
            record = self._record_of(record_name(training.name, self._next_round))
            if record is not None and not report.is_told(record):
                return
            if record is not None:  # None: beyond spec.history
                self._report.say(report.round_line(record, training.spec.rounds))
            self._next_round += 1

    def _phase(self, training: Training, *, first: bool) -> None:
        status = training.status
        if status.phase in ("Blocked", "Failed"):
            self._report.complain(f"{status.phase}: {status.reason}: {status.message}")
        elif status.phase == "Succeeded":
            model = status.global_model
            words = [visible.line(f"Succeeded: {status.message}"), *report.measured(status.metrics)]
            if model is not None:
                where = visible.line(f"{model.path} on the exchange")
                words[-1] += f"\nmodel: {where}\ndigest: {visible.line(model.digest)}"
            self._report.last("  ".join(words))
        elif status.phase == "Suspended":
            self._report.say(f"Suspended: {status.message}")
        elif not first:
            self._report.say(f"{status.phase}, round {status.round}/{training.spec.rounds}")


def _news(phase: Phase, message: str) -> tuple[str, str]:
    return ("at work", "") if phase in _AT_WORK else (phase, message)


def problem_of(error: pydantic.ValidationError) -> str:
    """Why an object in the cluster cannot be read by this version."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"this version of fedtrain cannot read it: {field}: {first['msg']}; use a newer one"
