"""When things happened in a round, in seconds since it began."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from fedoperator.api.round import Assignment, Record
from fedoperator.report import curves

PHASES = (
    "Preparing",
    "Starting",
    "Initialising",
    "Training",
    "Suspended",
    "Aggregating",
    "Evaluating",
)


@dataclass(frozen=True, slots=True)
class Span:
    """A phase of a round; start and end in seconds since the round began."""

    phase: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def since(record: Record, moment: datetime | None) -> float | None:
    """Seconds from the beginning of the round, never negative; None if either is not known."""
    begun = record.status.started_at
    if begun is None or moment is None:
        return None
    return max(0.0, round((moment - begun).total_seconds(), 3))


def spans(record: Record) -> tuple[Span, ...]:
    """What a round spent its time with: its durations, one after the other.

    Starting is the part of Training, or Initialising, before the first pods were ready, if these
    were of a first attempt and their start was kept. Suspended is behind Training, wherever it was.
    Evaluating begins with the published model and is beside the next round. The phase that a round
    is in is known up to what last began or ended in it.
    """
    status = record.status
    workers = list(status.participants) if record.spec.round else _some(status.init)
    durations = dict(status.durations)
    since_when = since(record, status.phase_since)
    if status.phase != "Published" and since_when is not None:
        known = max(_moments(record, workers), default=0.0) - since_when
        durations[status.phase] = durations.get(status.phase, 0.0) + max(0.0, known)
    found, at = [], 0.0
    for phase in PHASES:
        if phase == "Evaluating":
            at = max(at, since(record, status.published_at) or 0.0)
        seconds = curves.finite(durations.get(phase)) or 0.0
        if seconds > 0:
            end = round(at + seconds, 3)
            found += _split(Span(phase, at, end), _first(record, workers))
            at = end
    return tuple(found)


def _split(span: Span, first: float | None) -> list[Span]:
    if span.phase not in ("Training", "Initialising") or first is None:
        return [span]
    if not span.start < first <= span.end:
        return [span]
    parts = [Span("Starting", span.start, first), Span(span.phase, first, span.end)]
    return [part for part in parts if part.seconds > 0]


def _first(record: Record, assignments: Iterable[Assignment]) -> float | None:
    """When the first of them was ready, if that was at its first attempt."""
    moments = [
        assignment.started_at
        for assignment in assignments
        if assignment.started_at is not None and assignment.attempt == 1
    ]
    return since(record, min(moments, default=None))


def _moments(record: Record, assignments: Iterable[Assignment]) -> list[float]:
    """The last that is known of each."""
    return [
        begin + (curves.finite(a.seconds) or 0.0)
        for a in assignments
        if (begin := since(record, a.started_at)) is not None
    ]


def _some(assignment: Assignment | None) -> list[Assignment]:
    return [] if assignment is None else [assignment]
