"""Which candidates are accepted, and with what weight: a decision on what was found so far."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from fedtrain.aggregation.report import Claim, Refusal
from fedtrain.contract import AggregateTask, weight_of
from fedtrain.errors import ContractError
from fedtrain.manifest import Accepted, Rejected

_DIGITS = 6
"""Of a norm in the manifest: fewer than sums of squares differ by between machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Of the candidates, sorted, each has a claim (who is still in) or a refusal, by its number."""

    candidates: tuple[tuple[str, int], ...]
    claims: Mapping[int, Claim]
    refusals: Mapping[int, Refusal]

    @property
    def members(self) -> tuple[int, ...]:
        """The numbers of those who are still in, in participant order."""
        return tuple(sorted(self.claims))

    def without(self, refusals: Iterable[Refusal]) -> Self:
        """These are out, too."""
        out = {**self.refusals, **{refusal.candidate: refusal for refusal in refusals}}
        claims = {number: claim for number, claim in self.claims.items() if number not in out}
        return replace(self, claims=claims, refusals=out)


def weighed(task: AggregateTask, standing: Standing) -> tuple[Standing, tuple[float, ...]]:
    """The weights of the members, n_k / n; if n is 0, nobody is left (SamplesMissing)."""
    amounts = [_amount(task, standing.claims[number].samples) for number in standing.members]
    total = sum(amounts)
    if amounts and total == 0:
        sentence = f"nobody in this round counted any {task.weight.lower()}"
        nobody = [
            Refusal(candidate=number, reason="SamplesMissing", sentence=sentence)
            for number in standing.members
        ]
        return standing.without(nobody), ()
    return standing, tuple(amount / total for amount in amounts)


def accepted(
    standing: Standing,
    weights: Sequence[float],
    squares: Sequence[float],
    cosines: Sequence[float | None],
) -> tuple[Accepted, ...]:
    """The members, for the manifest. squares: of each one's parameters, summed. cosines: see
    `weighting.cosines`."""
    return tuple(
        Accepted(
            participant=standing.candidates[number][0],
            attempt=standing.candidates[number][1],
            weight=weight,
            samples=standing.claims[number].samples,
            digest=standing.claims[number].digest,
            norm=float(f"{math.sqrt(square):.{_DIGITS}g}"),
            cosine=None if cosine is None else round(cosine, _DIGITS - 1),
        )
        for number, weight, square, cosine in zip(
            standing.members, weights, squares, cosines, strict=True
        )
    )


def rejected(standing: Standing) -> tuple[Rejected, ...]:
    """Everybody else, for the manifest and the verdicts."""
    return tuple(
        Rejected(
            participant=standing.candidates[number][0],
            attempt=standing.candidates[number][1],
            reason=refusal.reason,
            sentence=refusal.sentence,
        )
        for number, refusal in sorted(standing.refusals.items())
    )


def _amount(task: AggregateTask, samples: int) -> int:
    try:
        return weight_of(samples, task.weight, task.weight_max)
    except ValueError as error:
        raise ContractError("BadTask", str(error)) from error
