"""When things happened in a round, in seconds since it began."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fedoperator.api.round import Assignment, Record

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
    until the model is published. Of evaluations only their beginnings are known: Evaluating is from
    the first that was ready to the last, and what that one measured of itself. Where starts were
    not kept (500 invited or more) Training holds that time, too.
    """
    status = record.status
    work: Phase = "Training" if record.spec.round else "Initialising"
    workers = status.participants if record.spec.round else _some(status.init)
    readiness = _known(record, workers)
    aggregation = since(record, status.aggregation.started_at) if status.aggregation else None
    published = since(record, status.published_at)
    kept = bool(readiness) or not workers
    begins: list[tuple[Phase, float | None]] = [
        ("Starting" if kept else work, 0.0),
        (work, min(readiness, default=None)),
        ("Aggregating", aggregation),
    ]
    known = [(phase, begin) for phase, begin in begins if begin is not None]
    # Without a published model the last phase goes on: what is known of it is that it began.
    last = published if published is not None else max(b for _, b in known)
    found, at = [], 0.0
    for number, (phase, _) in enumerate(known):
        end = known[number + 1][1] if number + 1 < len(known) else last
        end = min(max(end, at), max(last, at))
        if end > at:
            found.append(Span(phase, at, end))
        at = end
    return (*found, *_evaluating(record, at))


def _evaluating(record: Record, published: float) -> tuple[Span, ...]:
    begins = _known(record, record.status.evaluation)
    if not begins:
        return ()
    ends = [
        begin + (e.seconds or 0.0)
        for e in record.status.evaluation
        if (begin := since(record, e.started_at)) is not None
    ]
    return (Span("Evaluating", max(min(begins), published), max(max(ends), published)),)


def _known(record: Record, assignments: Iterable[Assignment]) -> list[float]:
    moments = (since(record, a.started_at) for a in assignments)
    return [moment for moment in moments if moment is not None]


def _some(assignment: Assignment | None) -> list[Assignment]:
    return [] if assignment is None else [assignment]
