"""spec.aggregation and spec.compression: how the aggregator works, and how updates travel to it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from fedoperator.api.base import Model, Rule
from fedoperator.api.trainer import Resources

INT8_BLOCKS = [64, 128, 256, 512, 1024, 2048, 4096]
TOPK_BLOCKS = (1024, 65536)


class Aggregation(Model):
    """How the aggregator does its work."""

    shards: Annotated[int, Field(ge=1, le=64, title="number of shards")] = 1
    """Pods that share an aggregation, each with whole tensors of the model; the result is the same
    for any number. A change acts at the next aggregation."""

    precision: Literal["Float32", "Float64", "Exact"] = "Float32"
    """Of the sums. Float32: with partial sums, within 3e-7. Float64: slower. Exact: fixed point,
    the same bits in any order and grouping; for strategies that form sums."""

    resources: Resources | None = None
    """Of each pod that fedtrain runs itself: aggregation, preparation, import. Left out: requests
    of 100m cpu and 256Mi memory, no limits."""


def _block(compression: "Compression") -> int | None:
    return compression.block


class Compression(Model):
    """How updates travel from the participants to the aggregator; as fp32 if left out."""

    rules = (
        Rule(
            field="block",
            cel="!has(self.block) || self.codec != 'BFloat16'",
            holds=lambda compression: compression.block is None or compression.codec != "BFloat16",
            says="not a parameter of BFloat16; it has none",
        ),
        Rule(
            field="fraction",
            cel="!has(self.fraction) || self.codec == 'TopK'",
            holds=lambda compression: compression.fraction is None or compression.codec == "TopK",
            says="not a parameter of {0}; only TopK has it",
            values=(("self.codec", lambda compression: compression.codec),),
        ),
        Rule(
            field="block",
            cel=f"!has(self.block) || self.codec != 'Int8' || self.block in {INT8_BLOCKS}",
            holds=lambda compression: (
                compression.codec != "Int8" or (compression.block or 256) in INT8_BLOCKS
            ),
            says="{0} is no block of Int8; use a power of two from 64 to 4096",
            values=(("self.block", _block),),
        ),
        Rule(
            field="block",
            cel=f"!has(self.block) || self.codec != 'TopK' || self.block >= {TOPK_BLOCKS[0]}",
            holds=lambda compression: (
                compression.codec != "TopK" or (compression.block or 65536) >= TOPK_BLOCKS[0]
            ),
            says="{0} is no block of TopK; use 1024 to 65536",
            values=(("self.block", _block),),
        ),
    )

    codec: Literal["BFloat16", "Int8", "TopK"]
    """BFloat16: half the bytes. Int8: a quarter, whole numbers with one scale per block. TopK:
    only the largest values of each block; needs scratch for every participant. What Int8 and TopK
    leave out of an update comes with a later one (error feedback)."""

    block: Annotated[int, Field(ge=INT8_BLOCKS[0], le=TOPK_BLOCKS[1])] | None = None
    """Values that are encoded together: for Int8 a power of two from 64 to 4096, for TopK 1024 to
    65536. Left out: 256 for Int8, 65536 for TopK."""

    fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """TopK: the share of the values that travels. Left out: 0.01."""

    @property
    def document(self) -> dict[str, Any]:
        """As `fedtrain.codecs` reads it: the name and every parameter."""
        if self.codec == "Int8":
            return {"name": "Int8", "block": self.block or INT8_BLOCKS[2]}
        if self.codec == "TopK":
            fraction = 0.01 if self.fraction is None else self.fraction
            return {"name": "TopK", "fraction": fraction, "block": self.block or TOPK_BLOCKS[1]}
        return {"name": self.codec}
