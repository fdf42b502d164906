"""The schema of a model: each tensor's name, dtype, shape, kind and the names tied to it.

`schema.json` lies beside every global model. Its kinds say how a tensor is aggregated: parameters
take the strategy, floating buffers the plain weighted mean, integers (and bool) the maximum; what
is frozen is part of no update and the same in every round; an alias is the other name of a tied
tensor and travels once.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from fedtrain.layout import FLOATING, TensorInfo, numpy_dtype, plan

VERSION = 1
Kind = Literal["parameter", "buffer", "integer", "frozen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a model. Raises ValueError for a kind that does not fit the dtype."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: Kind = "parameter"
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numpy_dtype(self.dtype)
        if self.kind not in get_args(Kind) or (self.kind != "integer") != (self.dtype in FLOATING):
            raise ValueError(f"{self.name}: a {self.dtype} tensor is no {self.kind}")


@dataclass(frozen=True, slots=True)
class Schema:
    """What a global model consists of, sorted by name."""

    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, tensors: Iterable[TensorSpec]) -> Self:
        return cls(tuple(sorted(tensors, key=lambda tensor: tensor.name)))

    def layout(self) -> tuple[TensorInfo, ...]:
        """Where the tensors lie in a file that we write."""
        return plan((tensor.name, tensor.dtype, tensor.shape) for tensor in self.tensors)

    def difference(self, tensors: Iterable[TensorInfo]) -> str | None:
        """None if these are exactly the schema's tensors, else one sentence about the first."""
        found = {info.name: info for info in tensors}
        for spec in self.tensors:
            info = found.pop(spec.name, None)
            shown = ascii(spec.name[:80])
            if info is None:
                return f"tensor {shown} is missing"
            if (info.dtype, info.shape) != (spec.dtype, spec.shape):
                return (
                    f"tensor {shown} is {info.dtype} {list(info.shape)}, "
                    f"not {spec.dtype} {list(spec.shape)}"
                )[:300]
        if found:
            return f"tensor {min(found)[:80]!a} is not part of the model"
        return None

    def to_json(self) -> str:
        tensors = [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "kind": tensor.kind,
                "aliases": list(tensor.aliases),
            }
            for tensor in self.tensors
        ]
        return json.dumps({"version": VERSION, "tensors": tensors}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, in one sentence, for anything that is not a schema."""
        try:
            document = json.loads(text)
            if document["version"] != VERSION:
                raise ValueError(f"version {document['version']!r} is not {VERSION}")
            return cls.of(_spec(entry) for entry in document["tensors"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"not a schema: {error}") from error


def _spec(entry: dict[str, Any]) -> TensorSpec:
    return TensorSpec(
        name=str(entry["name"]),
        dtype=entry["dtype"],
        shape=tuple(int(length) for length in entry["shape"]),
        kind=entry["kind"],
        aliases=tuple(entry["aliases"]),
    )
