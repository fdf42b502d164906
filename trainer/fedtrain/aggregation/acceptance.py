"""Which candidates are accepted, and with what weight: a decision on what inspection found."""

from collections.abc import Sequence

from fedtrain.aggregation.inspection import Inspected
from fedtrain.contract import AggregateTask, weight_of
from fedtrain.errors import ContractError
from fedtrain.manifest import Accepted, Rejected

_DIGITS = 6
"""Of a norm in the manifest: fewer than fp64 sums differ by between machines."""


def accept(
    task: AggregateTask, inspected: Sequence[Inspected]
) -> tuple[tuple[Accepted, ...], tuple[Rejected, ...]]:
    """Everyone who passed, weighted n_k / n; if n is 0, nobody (SamplesMissing)."""
    passed = [one for one in inspected if one.reason is None]
    rejected = [
        Rejected(
            participant=one.participant,
            attempt=one.attempt,
            reason=one.reason,
            sentence=one.sentence,
        )
        for one in inspected
        if one.reason is not None
    ]
    amounts = [_amount(task, one.samples) for one in passed]
    total = sum(amounts)
    if total == 0:
        rejected += [_without_samples(task, one) for one in passed]
        rejected.sort(key=lambda entry: (entry.participant, entry.attempt))
        return (), tuple(rejected)
    accepted = tuple(
        Accepted(
            participant=one.participant,
            attempt=one.attempt,
            weight=amount / total,
            samples=one.samples,
            digest=one.digest,
            norm=float(f"{one.norm:.{_DIGITS}g}"),
        )
        for one, amount in zip(passed, amounts, strict=True)
    )
    return accepted, tuple(rejected)


def _amount(task: AggregateTask, samples: int) -> int:
    try:
        return weight_of(samples, task.weight, task.weight_max)
    except ValueError as error:
        raise ContractError("BadTask", str(error)) from error


def _without_samples(task: AggregateTask, one: Inspected) -> Rejected:
    return Rejected(
        participant=one.participant,
        attempt=one.attempt,
        reason="SamplesMissing",
        sentence=f"nobody in this round counted any {task.weight.lower()}",
    )
