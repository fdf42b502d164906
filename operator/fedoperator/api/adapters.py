"""spec.adapters and spec.model.base: low-rank adapters, and the frozen model that they stand on.

What each aggregation computes stands in `fedtrain.adapters` and `fedtrain.aggregation.pairing`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from fedoperator.api.base import Model, Rule
from fedoperator.api.fields import ObjectName, RelativePath
from fedoperator.api.strategy import StrategyName
from fedtrain import contract

AVERAGING: tuple[StrategyName, ...] = ("FedAvg", "FedProx")
"""Strategies whose rule is the weighted mean and whose step is none: those of Product."""

Rank = Annotated[int, Field(ge=1, le=4096, title="rank")]


class Adapters(Model):
    """How low-rank adapters (LoRA) are put together; each layer has a pair of factors, A and B."""

    aggregation: Literal["Factors", "Product", "FrozenA"] = "Factors"
    """Factors: A and B are averaged, each by itself. Product: the products of A and B are averaged,
    exactly, and cut to the global rank; participants may have different ranks. FrozenA: A is the
    same for everybody and in every round, B is averaged, which is exact too."""

    rank: Rank | None = None
    """Of the global adapter; the script builds it with fedtrain.adapter_rank(). Left out: the
    script's own."""

    def document(self, rank: int | None) -> dict[str, Any]:
        """As `fedtrain.adapters` reads it, for who has this rank."""
        return {"aggregation": self.aggregation, "rank": self.rank if rank is None else rank}


class BaseCopy(Model):
    """A participant's own copy of the base model; its digest must be that of all others."""

    claim_name: ObjectName
    """Of a PersistentVolumeClaim in the namespace of the training."""

    path: RelativePath | None = None
    """Of the folder; the claim's root if left out."""

    @property
    def folder(self) -> str:
        """Where a participant's containers see it."""
        return f"{contract.BASE_MOUNT}/{self.path or ''}".rstrip("/")


class BaseModel(BaseCopy):
    """A frozen model that adapters stand on, with its tokenizer: mounted read-only at every
    participant, and never on the exchange."""

    digest: (
        Annotated[
            str,
            Field(
                pattern="^sha256:[0-9a-f]{64}$",
                max_length=71,
                title="digest",
                json_schema_extra={"example": "sha256:<64 hex digits>"},
            ),
        ]
        | None
    ) = None
    """What the files of every participant must have. Left out: what the first participant's have
    when the training begins."""


def _product(field: str, cel: str, holds: Any, says: str, value: Any = None) -> Rule:
    """Something that does not go with Product. cel, holds: that it is not there."""
    return Rule(
        field=field,
        cel=f"!has(self.adapters) || self.adapters.aggregation != 'Product' || {cel}",
        holds=lambda spec: (
            spec.adapters is None or spec.adapters.aggregation != "Product" or holds(spec)
        ),
        says=says,
        values=() if value is None else (value,),
    )


TURNS = "Product gives the factors another basis every round"

RULES = (
    _product(
        "strategy.name",
        f"self.strategy.name in {list(AVERAGING)}",
        lambda spec: spec.strategy.name in AVERAGING,
        "{0} works on the factors, and " + TURNS + "; use FedAvg or FedProx, or "
        "adapters.aggregation: FrozenA",
        ("self.strategy.name", lambda spec: spec.strategy.name),
    ),
    _product(
        "strategy.normBound",
        "!has(self.strategy.normBound)",
        lambda spec: spec.strategy.norm_bound is None,
        "bounds the factors, and Product averages what they come to; leave it out, or use "
        "adapters.aggregation: FrozenA",
    ),
    _product(
        "compression.codec",
        "!has(self.compression) || self.compression.codec == 'BFloat16'",
        lambda spec: spec.compression is None or spec.compression.codec == "BFloat16",
        "{0} adds what it left out to the next update (error feedback), and " + TURNS + "; use "
        "BFloat16, or leave compression out",
        ("self.compression.codec", lambda spec: spec.compression.codec),
    ),
    _product(
        "aggregation.precision",
        "self.aggregation.precision != 'Exact'",
        lambda spec: spec.aggregation.precision != "Exact",
        "Exact is a way to form sums, and Product factors them; use Float32 or Float64",
    ),
    _product(
        "optimizerState",
        "self.optimizerState == 'Reset'",
        lambda spec: spec.optimizer_state == "Reset",
        "Keep holds moments of the factors, and " + TURNS + "; use Reset, or "
        "adapters.aggregation: FrozenA",
    ),
    _product(
        "personalization.ditto",
        "!has(self.personalization) || !has(self.personalization.ditto)",
        lambda spec: spec.personalization is None or spec.personalization.ditto is None,
        "pulls each factor towards the global one, and " + TURNS + "; leave it out, or use "
        "adapters.aggregation: FrozenA",
    ),
    Rule(
        field="model",
        cel=(
            "!has(self.adapters) || self.adapters.aggregation == 'Factors' || "
            "!has(self.model.claimName)"
        ),
        holds=lambda spec: (
            spec.adapters is None
            or spec.adapters.aggregation == "Factors"
            or spec.model.claim_name is None
        ),
        says=(
            "{0} starts from the adapter that the script builds; leave claimName out, and load it "
            "there"
        ),
        values=(("self.adapters.aggregation", lambda spec: spec.adapters.aggregation),),
    ),
    Rule(
        field="model.base.digest",
        cel="!has(self.model.base) || has(self.model.base.digest) || !has(self.model.claimName)",
        holds=lambda spec: (
            spec.model.base is None
            or spec.model.base.digest is not None
            or spec.model.claim_name is None
        ),
        says="is missing, and no script learns it where the initial model is imported; give it",
    ),
    Rule(
        field="participants",
        cel=(
            "self.participants.all(p, !has(p.adapterRank)) || (has(self.adapters) && "
            "self.adapters.aggregation == 'Product' && has(self.adapters.rank))"
        ),
        holds=lambda spec: (
            all(p.adapter_rank is None for p in spec.participants)
            or (
                spec.adapters is not None
                and spec.adapters.aggregation == "Product"
                and spec.adapters.rank is not None
            )
        ),
        says=(
            "an adapterRank of one's own needs adapters.aggregation: Product and adapters.rank; "
            "add them, or leave it out"
        ),
    ),
    Rule(
        field="participants",
        cel=(
            "!has(self.adapters) || !has(self.adapters.rank) || self.participants.all(p, "
            "!has(p.adapterRank) || p.adapterRank <= self.adapters.rank)"
        ),
        holds=lambda spec: (
            spec.adapters is None
            or spec.adapters.rank is None
            or all((p.adapter_rank or 1) <= spec.adapters.rank for p in spec.participants)
        ),
        says="an adapterRank is more than adapters.rank, which is {0}; use {0} or less",
        values=(("self.adapters.rank", lambda spec: spec.adapters.rank),),
    ),
    Rule(
        field="participants",
        cel="has(self.model.base) || self.participants.all(p, !has(p.base))",
        holds=lambda spec: (
            spec.model.base is not None or all(p.base is None for p in spec.participants)
        ),
        says="a base is a copy of model.base, and there is none; add model.base, or leave it out",
    ),
)
"""Of the spec."""
