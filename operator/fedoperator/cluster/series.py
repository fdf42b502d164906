"""The series of trainings, as a Prometheus collector over what was last seen of them.

Progress and results come from the status, participants from the records at hand: of each
participant the newest value there is, so that a series does not blink between rounds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fedoperator.api.round import Assignment, Measured, Range, Record, State
from fedoperator.api.status import Phase, TrainingStatus
from fedoperator.cluster.families import FAMILIES, OWN
from fedoperator.cluster.workqueue import Key
from fedoperator.rounds import quarantine

REASONS = 20
"""Of lost participants, told apart; a script may have any number of words for its failures."""

NOT_OVERHEAD = frozenset({"Suspended", "Evaluating"})

Series = tuple[str, tuple[str, ...], float]
"""Name without the prefix, values of the labels beyond the training's, value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A training as last looked at. rounds: asked for, None if its spec cannot be read.

    records: the few that were read, in order of round.
    """

    status: TrainingStatus
    rounds: int | None = None
    records: tuple[Record, ...] = field(default=())


class TrainingSeries(Collector):
    """Renders `seen`, which others keep up to date."""

    def __init__(self, seen: Mapping[Key, Seen]) -> None:
        self._seen = seen

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return _families().values()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = _families()
        for (namespace, training), seen in list(self._seen.items()):
            for name, labels, value in _series(seen):
                families[name].add_metric([namespace, training, *labels], value)
        yield from families.values()


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(f"fedtrain_{name}", family.says, labels=[*OWN, *family.labels])
        for name, family in FAMILIES.items()
    }


def _series(seen: Seen) -> Iterator[Series]:
    status = seen.status
    for phase in get_args(Phase):
        yield "training_phase", (phase,), float(phase == status.phase)
    if status.reason:
        yield "training_reason", (status.reason,), 1.0
    yield "training_round", (), status.round
    if seen.rounds is not None:
        yield "training_rounds", (), seen.rounds
    if status.started_at is not None:
        yield "training_started_timestamp_seconds", (), status.started_at.timestamp()
    if status.global_model is not None:
        yield "global_model_round", (), status.global_model.round
    for metric, value in status.metrics.items():
        yield "global_metric", (metric,), value
    if status.evaluated_round is not None:
        yield "global_metric_round", (), status.evaluated_round
    if seen.records:
        yield from _of_newest_round(seen.records[-1])
        yield from _of_published_round(seen.records)
        yield from _of_participants(seen.records)
        yield from _of_aggregation(seen.records)


def _of_newest_round(record: Record) -> Iterator[Series]:
    participants, status = record.status.participants, record.status
    if status.phase != "Published" and status.started_at is not None:
        yield "round_started_timestamp_seconds", (), status.started_at.timestamp()
    yield "round_invited_participants", (), len(participants)
    states = Counter(p.state for p in participants)
    for state in get_args(State):
        yield "round_participants", (state,), states[state]
    for reason, count in _by_reason(p for p in participants if p.is_lost):
        yield "round_lost_participants", (reason,), count
    yield "round_retries", (), sum(p.attempt - 1 for p in participants)
    out = quarantine.left_out(record)
    yield "round_quarantined", (), len(out)
    for name, until in out.items():
        yield "participant_quarantined_until_round", (name,), until
    for name, lost in record.spec.losing.items():
        yield "participant_rounds_lost", (name,), lost
    yield "round_quorum_misses", (), status.misses
    for p in participants:
        yield "participant_attempt_failures", (p.name,), p.failures


def _by_reason(lost: Iterable[Assignment]) -> Iterator[tuple[str, int]]:
    """The most frequent; all others are Other."""
    counts = Counter(p.reason or p.state for p in lost)
    most = counts.most_common(REASONS)
    yield from most
    if others := counts.total() - sum(count for _, count in most):
        yield "Other", others


def _of_published_round(records: Sequence[Record]) -> Iterator[Series]:
    published = [r.status for r in records if r.status.phase == "Published"]
    if not published:
        return
    last = published[-1]
    evaluated = [s.durations["Evaluating"] for s in published if "Evaluating" in s.durations]
    durations = dict(last.durations)
    if evaluated:
        durations["Evaluating"] = evaluated[-1]
    for phase, seconds in durations.items():
        yield "round_duration_seconds", (phase,), seconds
    took = sum(s for phase, s in last.durations.items() if phase not in NOT_OVERHEAD)
    trained = [p.seconds for p in last.participants if p.state == "Accepted" and p.seconds]
    if trained:
        yield "round_overhead_seconds", (), max(0.0, took - max(trained))
    if last.accelerators is not None:
        yield "round_accelerator_seconds", ("held",), last.accelerators.held
        yield "round_accelerator_seconds", ("used",), last.accelerators.used


def _of_participants(records: Iterable[Record]) -> Iterator[Series]:
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    for record in records:
        for p in record.status.participants:
            found |= dict(_measured(p))
            found |= {("metric", (p.name, "train", m)): v for m, v in p.metrics.items()}
        for e in record.status.evaluation:
            found |= {("metric", (e.name, "evaluate", m)): v for m, v in e.metrics.items()}
        for t in record.status.personalization:
            found |= {("metric", (t.name, "personalize", m)): v for m, v in t.metrics.items()}
    for (name, labels), value in found.items():
        yield f"participant_{name}", labels, value


def _measured(p: Assignment) -> Iterator[tuple[tuple[str, tuple[str, ...]], float]]:
    values = {"samples": p.samples, "seconds": p.seconds, "weight": p.weight}
    for name, value in {**values, "update_norm": p.norm, "update_cosine": p.cosine}.items():
        if value is not None:
            yield (name, (p.name,)), float(value)


def _of_aggregation(records: Iterable[Record]) -> Iterator[Series]:
    states = [Counter(p.state for p in r.status.participants) for r in records]
    decided = [count for count in states if count["Accepted"] + count["Rejected"]]
    if decided:
        yield "aggregation_updates", ("accepted",), decided[-1]["Accepted"]
        yield "aggregation_updates", ("rejected",), decided[-1]["Rejected"]
    measured = [
        (r.status.measured, count["Accepted"])
        for r, count in zip(records, states, strict=True)
        if r.status.measured is not None
    ]
    if measured:
        yield from _of_measured(*measured[-1])


def _of_measured(measured: Measured, accepted: int) -> Iterator[Series]:
    yield "aggregation_bytes", (), measured.bytes
    yield "aggregation_seconds", (), measured.seconds
    yield "aggregation_peak_memory_bytes", (), measured.peak_memory
    if accepted:
        yield "aggregation_update_bytes", (), measured.bytes / accepted
    for name, found in (("norm", measured.norms), ("cosine", measured.cosines)):
        for of in Range.model_fields if found is not None else ():
            yield f"aggregation_update_{name}", (of,), getattr(found, of)
    if measured.exchange_free is not None:
        yield "exchange_free_bytes", (), measured.exchange_free
    if measured.exchange_size is not None:
        yield "exchange_size_bytes", (), measured.exchange_size
