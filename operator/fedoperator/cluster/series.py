"""The series of trainings, as a Prometheus collector over what was last seen of them.

Progress and results come from the status, participants from the records at hand: of each
participant the newest value there is, so that a series does not blink between rounds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fedoperator.api.round import Assignment, Record, State
from fedoperator.api.status import Phase, TrainingStatus
from fedoperator.cluster.workqueue import Key
from fedoperator.rounds import quarantine

_TRAINING = ("namespace", "training")
_FAMILIES = {
    "training_phase": ("1 for the phase a training is in, 0 for the others.", ("phase",)),
    "training_reason": ("1 for the reason why a training is where it is.", ("reason",)),
    "training_round": ("The round in progress; 0 is the making of the initial model.", ()),
    "training_rounds": ("Rounds asked for.", ()),
    "training_started_timestamp_seconds": ("When the first round began.", ()),
    "global_model_round": ("The round of the newest global model.", ()),
    "global_metric": ("A metric of the last evaluated global model.", ("metric",)),
    "global_metric_round": ("The round of the global model that was last evaluated.", ()),
    "participant_samples": ("What a participant last trained on.", ("participant",)),
    "participant_seconds": ("How long a participant last trained.", ("participant",)),
    "participant_weight": ("A participant's last share of the mean.", ("participant",)),
    "participant_metric": (
        "A metric that a participant last reported while it trained or evaluated.",
        ("participant", "role", "metric"),
    ),
    "participant_attempt_failures": (
        "Failed attempts of a participant that count against its retries, in this round.",
        ("participant",),
    ),
    "round_participants": ("Participants of the round in progress, by state.", ("state",)),
    "round_quarantined": ("Participants left out of the round for having lost too many.", ()),
    "participant_quarantined_until_round": (
        "The last round that a participant is left out of.",
        ("participant",),
    ),
    "participant_rounds_lost": (
        "Rounds in a row that a participant lost by its own fault, before this one.",
        ("participant",),
    ),
    "round_quorum_misses": ("How often the round in progress missed its quorum.", ()),
    "aggregation_bytes": ("Read from update files by the last aggregation.", ()),
    "aggregation_seconds": ("Time taken by the last aggregation.", ()),
    "aggregation_peak_memory_bytes": ("Peak memory of the last aggregation.", ()),
}
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
        name: GaugeMetricFamily(f"fedtrain_{name}", text, labels=[*_TRAINING, *labels])
        for name, (text, labels) in _FAMILIES.items()
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
        yield from _of_round(seen.records[-1])
        yield from _of_participants(seen.records)
        yield from _of_aggregation(seen.records)


def _of_round(record: Record) -> Iterator[Series]:
    states = Counter(p.state for p in record.status.participants)
    for state in get_args(State):
        yield "round_participants", (state,), states[state]
    out = quarantine.left_out(record)
    yield "round_quarantined", (), len(out)
    for name, until in out.items():
        yield "participant_quarantined_until_round", (name,), until
    for name, lost in record.spec.losing.items():
        yield "participant_rounds_lost", (name,), lost
    yield "round_quorum_misses", (), record.status.misses
    for p in record.status.participants:
        yield "participant_attempt_failures", (p.name,), p.failures


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
    for name, value in (("samples", p.samples), ("seconds", p.seconds), ("weight", p.weight)):
        if value is not None:
            yield (name, (p.name,)), float(value)


def _of_aggregation(records: Iterable[Record]) -> Iterator[Series]:
    measured = [r.status.measured for r in records if r.status.measured is not None]
    if measured:
        yield "aggregation_bytes", (), measured[-1].bytes
        yield "aggregation_seconds", (), measured[-1].seconds
        yield "aggregation_peak_memory_bytes", (), measured[-1].peak_memory
