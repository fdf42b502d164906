"""How much a record may hold: etcd takes 1.5 MiB an object, whatever a thousand pods have to say.

Sentences and metrics share a budget among all assignments of a round; what is cut here stands in
full in the events and in the receipts beside the updates.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fedoperator.api.round import Assignment, FineTuned, Record
from fedoperator.api.training import TrainingSpec
from fedtrain import contract

A = TypeVar("A", bound=Assignment)
T = TypeVar("T")
TEXT_BUDGET = 240_000
"""Characters of messages and of last failures, each."""

METRICS_BUDGET = 1_500
"""Metrics of all participants and evaluators together; about 30 bytes each."""

LARGE = 500
"""Invited from which on a record lets go of what says something twice, or nobody needs any more:
so that the record of a thousand, with a metric and the digest of each, stays below 256 KiB."""

_REASON = 80


def bounded(spec: TrainingSpec, record: Record) -> Record:
    """The record, cut to what the API server takes; cutting it again changes nothing."""
    status = record.status
    count = len(status.participants) + len(status.evaluation) + 2 * len(status.personalization)
    count = max(1, count)
    large = len(record.spec.invited) >= LARGE
    text = min(2048, TEXT_BUDGET // count)
    metrics = max(1, min(contract.METRICS_LIMIT, METRICS_BUDGET // count))

    def cut(assignment: A) -> A:
        more: dict[str, object] = {}
        if isinstance(assignment, FineTuned):
            more = {"before": preferred(spec, assignment.before, metrics)}
        if large and not assignment.is_open:
            more["started_at"] = None
        return assignment.model_copy(
            update=more
            | {
                "reason": assignment.reason[:_REASON],
                "message": assignment.message[:text],
                "last_failure": assignment.last_failure[:text],
                "metrics": preferred(spec, assignment.metrics, metrics),
            }
        )

    def cut_all(assignments: Sequence[A]) -> list[A]:
        return [cut(assignment) for assignment in assignments]

    def cut_one(assignment: Assignment | None) -> Assignment | None:
        return None if assignment is None else cut(assignment)

    update = {
        "participants": cut_all(status.participants),
        "evaluation": cut_all(status.evaluation),
        "personalization": cut_all(status.personalization),
        "prepare": cut_one(status.prepare),
        "init": cut_one(status.init),
        "aggregation": cut_one(status.aggregation),
    }
    if large and status.phase == "Published":  # Accepted and Rejected say who they were.
        update["candidates"] = []
    return record.model_copy(update={"status": status.model_copy(update=update)})


def preferred(spec: TrainingSpec, metrics: Mapping[str, T], most: int) -> dict[str, T]:
    """At most so many: what `stop` reads first, then accuracy and loss, then in order of name."""
    if len(metrics) <= most:
        return dict(metrics)
    wanted = (spec.stop.metric if spec.stop else None, spec.keep.metric)
    first = [*filter(None, wanted), "accuracy", "loss"]
    chosen = sorted(metrics, key=lambda n: (first.index(n) if n in first else len(first), n))
    return {name: metrics[name] for name in sorted(chosen[:most])}
