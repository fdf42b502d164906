"""When things happened in a round, in seconds since it began."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fedoperator.api.round import Assignment, Record
from fedoperator.report import curves

Phase = Literal["Starting", "Initialising", "Training", "Aggregating", "Evaluating"]
PHASES: tuple[Phase, ...] = ("Starting", "Initialising", "Training", "Aggregating", "Evaluating")


@dataclass(frozen=True, slots=True)
class Span:
    """A phase of a round; start and end in seconds since the round began."""

    phase: Phase
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
    """What a round spent its time with, as far as the record tells.

    Starting lasts until the first pods are ready, Training until the aggregator is, Aggregating
    until the model is published. When pods were ready is known of the latest attempts alone: if
    everybody needed several, or it was not kept (500 invited or more), Training begins with the
    round. Of evaluations, too, only the beginning is known: Evaluating is from the first that was
    ready to the last, and what that one measured of itself.
    """
    status = record.status
    work: Phase = "Training" if record.spec.round else "Initialising"
    workers = status.participants if record.spec.round else _some(status.init)
    first = _first(record, [worker for worker in workers if worker.attempt == 1])
    aggregation = since(record, status.aggregation.started_at) if status.aggregation else None
    published = since(record, status.published_at)
    kept = first is not None or not workers
    begins: list[tuple[Phase, float | None]] = [
        ("Starting" if kept else work, 0.0),
        (work, first),
        ("Aggregating", aggregation),
    ]
    known = [(phase, begin) for phase, begin in begins if begin is not None]
    # Without a published model the last phase goes on, and is known up to what began last.
    last = published
    if last is None:
        last = max([begin for _, begin in known] + _moments(record, workers))
    found, at = [], 0.0
    for number, (phase, _) in enumerate(known):
        end = known[number + 1][1] if number + 1 < len(known) else last
        end = min(max(end, at), max(last, at))
        if end > at:
            found.append(Span(phase, at, end))
        at = end
    return (*found, *_evaluating(record, at))


def _evaluating(record: Record, published: float) -> tuple[Span, ...]:
    evaluation = record.status.evaluation
    first = _first(record, evaluation)
    if first is None:
        return ()
    end = max(_moments(record, evaluation))
    return (Span("Evaluating", max(first, published), max(end, published)),)


def _first(record: Record, assignments: Iterable[Assignment]) -> float | None:
    """When the first of them was ready."""
    moments = [a.started_at for a in assignments if a.started_at is not None]
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
