"""How the parameters of an update are encoded to travel: BFloat16, Int8, TopK.

A codec's document, complete with every parameter, stands in the receipt, so that an update says
itself how it is read. A parameter travels as one or more tensors (`Part`), whose shapes follow from
the parameter's shape and the codec alone, never from its values: what an update file must hold is
known before it is opened. Encoding and decoding work on runs of a flattened parameter that begin at
multiples of `unit`, so that memory is a tile on both sides. Whoever sends an update may send
anything: `decode` raises ValueError for what no encoder makes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedtrain.layout import FLOATING
from fedtrain.schema import Schema, TensorSpec

Array = np.ndarray[Any, Any]
INT8_BLOCKS = (64, 4096)
"""Least and most values that share a scale; powers of two, so that tiles begin where blocks do."""

TOPK_BLOCKS = (1024, 65536)
"""Least and most values among which TopK chooses; an index within a block has 16 bits."""


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor that carries a parameter; it is named as the parameter is, plus `suffix`."""

    suffix: str
    dtype: str
    shape: tuple[int, ...]


class Codec(Protocol):
    """A run is any elements [start, stop) of a flattened parameter of which `start` is a multiple
    of `unit`, and `stop` is one too or the parameter's end."""

    @property
    def document(self) -> Mapping[str, Any]:
        """Name and every parameter; `codec(document)` gives an equal codec back."""

    @property
    def unit(self) -> int | None:
        """Elements; None where a run may begin anywhere."""

    @property
    def feedback(self) -> bool:
        """Whether what is left out of an update has to be added to the next (error feedback)."""

    def parts(self, shape: tuple[int, ...]) -> tuple[Part, ...]:
        """The tensors that carry a parameter of this shape."""

    def encode(self, values: Array) -> tuple[Array, ...]:
        """One flat array per part, of a run of finite fp32."""

    def decode(self, parts: tuple[Array, ...], count: int) -> Array:
        """A run of `count` values as fp32, or as uint16 where they are the bits of bf16."""

    def part_range(self, part: int, start: int, stop: int) -> tuple[int, int]:
        """Which elements of a part carry the run [start, stop)."""


@dataclass(frozen=True, slots=True)
class BFloat16:
    """The upper half of fp32, rounded half to even: relative error at most 2**-8.

    Without feedback: what rounding takes from a delta is unbiased and hundreds of times smaller
    than the delta, and keeping it would cost every participant an fp32 copy of the model.
    """

    @property
    def document(self) -> Mapping[str, Any]:
        return {"name": "BFloat16"}

    @property
    def unit(self) -> int | None:
        return None

    @property
    def feedback(self) -> bool:
        return False

    def parts(self, shape: tuple[int, ...]) -> tuple[Part, ...]:
        return (Part("", "BF16", shape),)

    def encode(self, values: Array) -> tuple[Array, ...]:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        odd = (bits >> 16) & 1
        return (((bits + (odd + np.uint32(0x7FFF))) >> 16).astype(np.uint16),)

    def decode(self, parts: tuple[Array, ...], count: int) -> Array:
        (bits,) = parts
        _sized(bits, count, "values")
        return bits

    def part_range(self, part: int, start: int, stop: int) -> tuple[int, int]:
        return start, stop


@dataclass(frozen=True, slots=True)
class Int8:
    """Whole numbers from -127 to 127 times one fp32 scale per block, absmax / 127.

    Rounded half to even: the error is at most half a scale. A block of zeros has the scale 0.
    """

    block: int = 256

    @property
    def document(self) -> Mapping[str, Any]:
        return {"name": "Int8", "block": self.block}

    @property
    def unit(self) -> int | None:
        return self.block

    @property
    def feedback(self) -> bool:
        return True

    def parts(self, shape: tuple[int, ...]) -> tuple[Part, ...]:
        blocks = -(-math.prod(shape) // self.block)
        return Part("", "I8", shape), Part(":scales", "F32", (blocks,))

    def encode(self, values: Array) -> tuple[Array, ...]:
        rows = _rows(np.asarray(values, np.float32), self.block)
        # Of subnormal scales the quotient may round beyond 127, hence the clip.
        scales = (np.abs(rows).max(axis=1, initial=0) / np.float32(127)).astype(np.float32)
        divisors = np.where(scales > 0, scales, np.float32(1))
        whole = np.rint(rows / divisors[:, None])
        whole[scales == 0] = 0
        return np.clip(whole, -127, 127).astype(np.int8).reshape(-1)[: values.size], scales

    def decode(self, parts: tuple[Array, ...], count: int) -> Array:
        whole, scales = parts
        _sized(whole, count, "values")
        _sized(scales, -(-count // self.block), "scales")
        if not (np.isfinite(scales).all() and not np.signbit(scales).any()):
            raise ValueError("a scale is negative or not finite")
        if count and int(whole.min()) < -127:
            raise ValueError("-128 is no value of Int8, which is symmetrical")
        rows = _rows(whole.astype(np.float32), self.block)
        with np.errstate(over="ignore"):  # what becomes infinite is the reader's to refuse
            rows *= scales[:, None]
        return rows.reshape(-1)[:count]

    def part_range(self, part: int, start: int, stop: int) -> tuple[int, int]:
        return (start, stop) if part == 0 else (start // self.block, -(-stop // self.block))


@dataclass(frozen=True, slots=True)
class TopK:
    """Of each block the ceil(fraction * length) values of largest magnitude, as they are.

    Between equals the lowest index wins. Indices count from the block's begin, are sorted, and
    travel as the bits of I16 (safetensors' readers know no U16 everywhere). With error feedback
    as in Stich et al. 2018, "Sparsified SGD with Memory".
    """

    fraction: float = 0.01
    block: int = 65536

    @property
    def document(self) -> Mapping[str, Any]:
        return {"name": "TopK", "fraction": self.fraction, "block": self.block}

    @property
    def unit(self) -> int | None:
        return self.block

    @property
    def feedback(self) -> bool:
        return True

    def parts(self, shape: tuple[int, ...]) -> tuple[Part, ...]:
        kept = (self._kept(math.prod(shape)),)
        return Part("", "F32", kept), Part(":indices", "I16", kept)

    def encode(self, values: Array) -> tuple[Array, ...]:
        flat = np.ascontiguousarray(values, np.float32)
        indices = [self._chosen(rows) for rows in self._blocks(flat)]
        kept = [
            np.take_along_axis(rows, chosen, axis=1).reshape(-1)
            for rows, chosen in zip(self._blocks(flat), indices, strict=True)
        ]
        places = [chosen.astype(np.uint16).view(np.int16).reshape(-1) for chosen in indices]
        return _joined(kept, np.float32), _joined(places, np.int16)

    def decode(self, parts: tuple[Array, ...], count: int) -> Array:
        values, indices = parts
        _sized(values, self._kept(count), "values")
        _sized(indices, self._kept(count), "indices")
        out = np.zeros(count, np.float32)
        at = 0
        for rows in self._blocks(out):  # views, which are filled
            k = self._most(rows.shape[1])
            places = indices[at : at + len(rows) * k].view(np.uint16).reshape(len(rows), k)
            if (places[:, 1:] <= places[:, :-1]).any():
                raise ValueError("indices within a block are not sorted, or one comes twice")
            if (places[:, -1] >= rows.shape[1]).any():
                raise ValueError(f"an index is beyond its block of {rows.shape[1]}")
            chosen = values[at : at + places.size].reshape(places.shape)
            np.put_along_axis(rows, places.astype(np.intp), chosen, axis=1)
            at += places.size
        return out

    def part_range(self, part: int, start: int, stop: int) -> tuple[int, int]:
        return self._kept(start), self._kept(stop)

    def _most(self, length: int) -> int:
        return min(length, math.ceil(self.fraction * length))

    def _kept(self, count: int) -> int:
        """How many of the first `count` elements travel."""
        whole, rest = divmod(count, self.block)
        return whole * self._most(self.block) + self._most(rest)

    def _blocks(self, flat: Array) -> list[Array]:
        """The whole blocks as rows, and the last, shorter one as a row."""
        whole = flat.size - flat.size % self.block
        both = flat[:whole].reshape(-1, self.block), flat[whole:].reshape(1, -1)
        return [rows for rows in both if rows.size]

    def _chosen(self, rows: Array) -> Array:
        k = self._most(rows.shape[1])
        size = np.abs(rows)
        least = np.partition(size, rows.shape[1] - k, axis=1)[:, rows.shape[1] - k, None]
        chosen = size > least
        equal = size == least
        wanted = k - chosen.sum(axis=1, keepdims=True)
        chosen |= equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= wanted)
        return np.nonzero(chosen)[1].reshape(len(rows), k)


def codec(document: Mapping[str, Any] | None) -> Codec | None:
    """The codec that a task or a receipt names; None is fp32. Raises ValueError, one sentence."""
    if document is None:
        return None
    given = dict(document)
    name = given.pop("name", None)
    if name == "BFloat16":
        made: Codec = BFloat16()
    elif name == "Int8":
        block = _whole(name, given.pop("block", 256), INT8_BLOCKS)
        if block & (block - 1):
            raise ValueError(f"codec Int8: block {block} is not a power of two")
        made = Int8(block)
    elif name == "TopK":
        fraction = given.pop("fraction", 0.01)
        if type(fraction) not in (int, float) or not 0 < fraction <= 1:
            raise ValueError(f"codec TopK: fraction {fraction!r} is not above 0 and at most 1")
        made = TopK(float(fraction), _whole(name, given.pop("block", 65536), TOPK_BLOCKS))
    else:
        raise ValueError(f"{name!r} is no codec; use BFloat16, Int8 or TopK")
    if given:
        raise ValueError(f"codec {name} has no parameter {min(map(str, given))!r}")
    return made


def update_schema(schema: Schema, own: Codec | None) -> Schema:
    """What an update file holds: parameters by their parts, buffers and integers as they are, and
    nothing that is frozen."""
    moving = (spec for spec in schema.tensors if spec.kind != "frozen")
    return Schema.of(one for spec in moving for one in _carriers(spec, own))


def widened(values: Array) -> Array:
    """What `decode` gave, as fp32."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _carriers(spec: TensorSpec, own: Codec | None) -> list[TensorSpec]:
    if own is None or spec.kind != "parameter":
        return [TensorSpec(name=spec.name, dtype=spec.dtype, shape=spec.shape, kind=spec.kind)]
    return [
        TensorSpec(
            name=spec.name + part.suffix,
            dtype=part.dtype,
            shape=part.shape,
            kind="parameter" if part.dtype in FLOATING else "integer",
        )
        for part in own.parts(spec.shape)
    ]


def _whole(name: str, block: Any, bounds: tuple[int, int]) -> int:
    if type(block) is not int or not bounds[0] <= block <= bounds[1]:
        raise ValueError(f"codec {name}: block {block!r} is not from {bounds[0]} to {bounds[1]}")
    return block


def _sized(part: Array, count: int, what: str) -> None:
    if part.size != count:
        raise ValueError(f"{part.size} {what}, not {count}")


def _rows(flat: Array, block: int) -> Array:
    """(blocks, block), the last one filled with zeros; a view if nothing has to be filled."""
    missing = -flat.size % block
    if missing:
        flat = np.concatenate([flat, np.zeros(missing, flat.dtype)])
    return flat.reshape(-1, block)


def _joined(arrays: list[Array], dtype: type) -> Array:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)
