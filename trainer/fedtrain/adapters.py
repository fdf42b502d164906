"""Low-rank adapters: which tensors are a pair of factors, and what a participant sees of them.

LoRA (Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models") adds (α/r)·B·A to a
weight, with A of r × in and B of out × r. How pairs are put together is `spec.adapters`:

    Factors   A and B are averaged, like any other tensor
    Product   the products are averaged, and factored anew; on the exchange α/r is inside B
    FrozenA   A is the same for everybody and in every round, and B is averaged

Numpy and the standard library only: the aggregator uses this, too.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedtrain.contract import TASK_ENV, ParticipantTask, decode_task
from fedtrain.errors import ContractError
from fedtrain.schema import Schema, TensorSpec
from fedtrain.weights import Array, Seen, Tiles, Weights

AGGREGATIONS = ("Factors", "Product", "FrozenA")
AVERAGING = ("FedAvg", "FedProx")
"""Strategies whose rule is the weighted mean and whose step is none: those of Product."""

_A = re.compile(r"(?P<layer>.*\.)?lora_(?P<kind>embedding_)?A(?P<end>\.weight)?")
_MAGNITUDE = "lora_magnitude_vector"
"""What DoRA adds to a pair; its weight is no sum of a product any more."""

CONFIG_FILE = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two factors of one layer: a (rank, ...), b (out, rank); of a convolution b ends in ones."""

    a: TensorSpec
    b: TensorSpec

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def pairs(schema: Schema) -> tuple[Pair, ...]:
    """The pairs among a model's tensors, in the schema's order of A."""
    known = {spec.name: spec for spec in schema.tensors}
    found = []
    for a in schema.tensors:
        match = _A.fullmatch(a.name)
        if match is None:
            continue
        layer, kind, end = (part or "" for part in match.group("layer", "kind", "end"))
        b = known.get(f"{layer}lora_{kind}B{end}")
        if b is not None and _fit(a, b):
            found.append(Pair(a, b))
    return tuple(found)


def narrowed(schema: Schema, rank: int | None) -> Schema:
    """The schema of a participant of this rank: no pair is wider. None: as it is."""
    if rank is None:
        return schema
    shapes = {}
    for pair in pairs(schema):
        least = min(rank, pair.rank)
        shapes[pair.a.name] = (least, *pair.a.shape[1:])
        shapes[pair.b.name] = (pair.b.shape[0], least, *pair.b.shape[2:])
    return Schema.of(
        replace(spec, shape=shapes.get(spec.name, spec.shape)) for spec in schema.tensors
    )


def cut(tiles: Tiles, whole: tuple[int, ...], part: tuple[int, ...]) -> Iterator[tuple[int, Array]]:
    """The tiles of a factor of shape `part`, the first rows or columns of one of shape `whole`."""
    axis = next((n for n, length in enumerate(whole) if length != part[n]), None)
    if axis is None:
        yield from tiles
        return
    length, kept = math.prod(whole[axis:]), math.prod(part[axis:])
    for start, tile in tiles:
        inside = np.arange(start, start + tile.size) % length < kept
        if inside.any():
            yield start // length * kept + min(start % length, kept), tile[inside]


def adapting(weights: Weights, adapters: Mapping[str, Any] | None) -> Weights:
    """The model as the task's `adapters` have it travel. Raises ContractError."""
    if adapters is None:
        return weights
    found = pairs(weights.schema)
    if not found:
        raise ContractError(
            "NoAdapter",
            "spec.adapters: the model has no lora_A and lora_B of one rank; give rounds(...) a "
            "model with LoRA, or leave spec.adapters out",
        )
    rank, widest = adapters.get("rank"), max(pair.rank for pair in found)
    if rank is not None and widest != rank:
        raise ContractError(
            "RankMismatch",
            f"the adapter's rank is {widest}, but {rank} is asked for: build it with "
            "r=fedtrain.adapter_rank(...)",
        )
    match adapters.get("aggregation"):
        case "Factors":
            return weights
        case "Product":
            _no_magnitude(weights.schema)
            return Scaled(weights, getattr(weights, "scaling", {}))
        case "FrozenA":
            names = frozenset(pair.a.name for pair in found)
            freeze = getattr(weights, "freeze", None)  # arrays have no gradients to take away
            if freeze is not None:
                freeze(names)
            return Frozen(weights, names)
    known = ", ".join(AGGREGATIONS)
    sentence = f"adapters: {adapters.get('aggregation')!r} is not one of {known}"
    raise ContractError("BadTask", sentence)


def adapter_rank(default: int) -> int:
    """The rank to build the adapter with: that of the federation, or of this participant.

    default: for a run without a federation, and for one that asks for no rank. Use it before
    `rounds`: `LoraConfig(r=adapter_rank(8), ...)`.
    """
    text = os.environ.get(TASK_ENV)
    if text is None:
        return default
    try:
        task = decode_task(text)
    except ValueError as error:
        raise ContractError("BadTask", str(error)) from error
    asked = task.adapters if isinstance(task, ParticipantTask) else None
    rank = (asked or {}).get("rank")
    return default if rank is None else int(rank)


class Scaled(Seen):
    """Tensors that are `scaling` times as large on the exchange as they are in the model.

    What is loaded is the quotient, so a delta is relative to the quotient, too.
    """

    def __init__(self, inner: Weights, scaling: Mapping[str, float]) -> None:
        super().__init__(inner)
        self._scaling = {name: np.float32(scale) for name, scale in scaling.items() if scale != 1}

    def fill(self, name: str, tiles: Tiles) -> None:
        self._inner.fill(name, self._small(name, tiles))

    def values(self, name: str) -> Iterator[tuple[int, Array]]:
        return self._large(name, self._inner.values(name))

    def deltas(self, name: str, base: Tiles, unit: int = 1) -> Iterator[tuple[int, Array]]:
        return self._large(name, self._inner.deltas(name, self._small(name, base), unit))

    def _large(self, name: str, tiles: Tiles) -> Iterator[tuple[int, Array]]:
        scale = self._scaling.get(name)
        return ((start, tile if scale is None else tile * scale) for start, tile in tiles)

    def _small(self, name: str, tiles: Tiles) -> Iterator[tuple[int, Array]]:
        scale = self._scaling.get(name)
        return ((start, tile if scale is None else tile / scale) for start, tile in tiles)


class Frozen(Seen):
    """Tensors that are part of the global model and of no update."""

    def __init__(self, inner: Weights, names: frozenset[str]) -> None:
        super().__init__(inner)
        self._schema = Schema.of(
            replace(spec, kind="frozen") if spec.name in names else spec
            for spec in inner.schema.tensors
        )

    @property
    def schema(self) -> Schema:
        return self._schema


def check_frozen(name: str, deltas: Tiles) -> None:
    """Raises ContractError (FrozenChanged) unless all are zero; reads them to their end."""
    changed = False
    for _, tile in deltas:
        changed = changed or bool(tile.any())
    if changed:
        raise ContractError(
            "FrozenChanged",
            f"{name!r} was trained, but adapters.aggregation: FrozenA keeps it as it is for "
            "everybody; build the optimizer of parameters whose requires_grad is true",
        )


def unscaled_config(text: str) -> str:
    """An adapter_config.json for factors with α/r inside: α = r everywhere, all else as it was."""
    try:
        config = json.loads(text)
        scaled = {"lora_alpha": config["r"], "use_rslora": False}
        scaled["alpha_pattern"] = config.get("rank_pattern") or {}
        return json.dumps({**config, **scaled}, indent=2, sort_keys=True) + "\n"
    except (ValueError, TypeError, KeyError) as error:
        sentence = f"files[{CONFIG_FILE!r}] is no configuration of a LoRA adapter: {error}"
        raise ContractError("BadFiles", sentence) from error


def _fit(a: TensorSpec, b: TensorSpec) -> bool:
    return (
        "integer" not in (a.kind, b.kind)
        and min(len(a.shape), len(b.shape)) >= 2
        and a.shape[0] == b.shape[1]
        and math.prod(b.shape[2:]) == 1
    )


def _no_magnitude(schema: Schema) -> None:
    for spec in schema.tensors:
        if _MAGNITUDE in spec.name:
            raise ContractError(
                "AdapterUnsupported",
                f"adapters.aggregation: Product is for plain LoRA, and {spec.name!r} is of DoRA; "
                "use Factors, or use_dora=False",
            )
