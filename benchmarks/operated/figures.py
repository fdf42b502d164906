"""Figures from what the API server was asked, and from the samples of the process."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.operated.audit import Request
from benchmarks.operated.process import Sample

LEASES = "leases"


def percentile(values: Iterable[float], part: int) -> float:
    """The nearest rank: the smallest value that `part` hundredths of them do not exceed."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * part // 100) - 1]


def writes(requests: Sequence[Request]) -> list[Request]:
    """The operator's, without those to keep its lease."""
    return [r for r in requests if r.by_operator and r.writes and r.resource != LEASES]


def reactions(requests: Sequence[Request]) -> list[float]:
    """Seconds from the write that a Job is over to the first write of the operator that knows it.

    That is the first one about the training within or after a look whose list was asked for when
    the event's write had come in, and answered after the event's answer: an earlier list need not
    hold it.
    """
    looks: dict[str, list[Request]] = defaultdict(list)
    acts = _times(writes(requests))
    for r in requests:
        if r.looks:
            looks[r.training].append(r)
    found, seen = [], set()
    for r in requests:
        if not r.ends or r.name in seen:
            continue
        seen.add(r.name)
        knowing = (x for x in looks[r.training] if x.at > r.at and x.until > r.until)
        look = next(knowing, None)
        act = None if look is None else next((t for t in acts[r.training] if t > look.at), None)
        if act is not None:
            found.append(act - r.until)
    return found


def turns(requests: Sequence[Request]) -> list[float]:
    """Seconds from a Job's end to the next Job that the operator makes because of it.

    Only of ends that the next step waited for: the last before it of that training.
    """
    made: dict[str, list[float]] = defaultdict(list)
    ends: dict[str, list[float]] = defaultdict(list)
    seen = set()
    for r in requests:
        if r.by_operator and r.verb == "create" and r.resource == "jobs":
            made[r.training].append(r.at)
        elif r.ends and r.name not in seen:
            seen.add(r.name)
            ends[r.training].append(r.until)
    found = []
    for training, moments in made.items():
        for end, after in _pairs(ends[training]):
            nexts = [m for m in moments if end < m and (after is None or m <= after)]
            found += [min(nexts) - end] if nexts else []
    return found


def _pairs(values: Sequence[float]) -> Iterator[tuple[float, float | None]]:
    ordered = sorted(values)
    yield from zip(ordered, [*ordered[1:], None], strict=True)


def _times(requests: Iterable[Request]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for r in requests:
        found[r.training].append(r.at)
    return found


def closest(requests: Iterable[Request]) -> float:
    """The least seconds between two of one training."""
    gaps = [
        after - before
        for moments in _times(requests).values()
        for before, after in itertools.pairwise(moments)
    ]
    return min(gaps)


def processor(samples: Sequence[Sample], since: float, until: float) -> float:
    """Seconds of processor between two moments."""
    within = [s for s in samples if since <= s.at <= until]
    return within[-1].processor - within[0].processor


def processor_per_look(
    samples: Sequence[Sample], looks: Sequence[float], window: float
) -> list[float]:
    """Of each stretch of so many seconds in which looks began: processor seconds per look.

    Everything that the process does is in there: watching, and its garbage collection.
    """
    found, start = [], samples[0]
    for s in samples[1:]:
        if s.at - start.at >= window:
            count = sum(start.at <= look < s.at for look in looks)
            found += [(s.processor - start.processor) / count] if count else []
            start = s
    return found
