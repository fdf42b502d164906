"""A model as named tensors that are read and written tile by tile, whatever framework holds it.

`fedtrain.models` chooses which: `arrays` for a mapping of numpy arrays, `checkpoint` for a torch
module. Tiles are (start, array) pairs in elements of the flattened tensor; floating values travel
as float32, integers and bools as they are.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fedtrain.correction import Correction
from fedtrain.layout import FLOATING
from fedtrain.proximal import Proximal
from fedtrain.schema import Schema

Array = np.ndarray[Any, Any]
Tiles = Iterable[tuple[int, Array]]
TILE = 1 << 18
"""Elements moved at once: 1 MiB of float32, a sixteenth of the digest's tiles, so that with all
that is made of them about one tile is in memory."""


@runtime_checkable
class Ranged(Protocol):
    """Tiles of which any part can be had without the rest."""

    def __iter__(self) -> Iterator[tuple[int, Array]]: ...

    def between(self, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Elements [start, stop) of the flattened tensor."""


class Weights(Protocol):
    """What the session does with a model: describe it, fill it, read it, and subtract from it.

    Of a sharded model `values` and `deltas` give each rank's part, and all ranks must ask for the
    same tensors in the same order; of any other, each rank's own, which is the same on all.
    """

    @property
    def schema(self) -> Schema:
        """As published: floating tensors in F32, tied names as aliases."""

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a part of it, so that all ranks publish together."""

    def names(self) -> Mapping[str, str]:
        """Every name (aliases too) and the name in `schema` of the tensor that it stands for."""

    def fill(self, name: str, tiles: Tiles) -> None:
        """Overwrite a tensor in place; dtype and device stay what they are."""

    def values(self, name: str) -> Iterator[tuple[int, Array]]:
        """The tensor's values as they would be published."""

    def own(self, name: str) -> tuple[str, Iterator[tuple[int, Array]]]:
        """(dtype, tiles) of the tensor as the model itself holds it; bf16 as the uint16 of it."""

    def deltas(self, name: str, base: Tiles, unit: int = 1) -> Iterator[tuple[int, Array]]:
        """Local minus base in float32, where base is first rounded to the model's own dtype.

        unit: where a rank's part begins and ends must be a multiple of it, or the tensor's end.

        The subtraction is from what was loaded: for a bf16 module that is the bf16 of the global
        value, so that a step too small for bf16 is zero and not minus the rounding error.
        """

    def proximal(
        self, mu: float, names: Collection[str] | None = None, around: "Weights | None" = None
    ) -> Proximal:
        """FedProx's term, over these names alone. around: whose values, if not this model's now."""

    def correction(
        self, strategy: str, proximal: Any, drift: Iterable[tuple[str, Tiles]]
    ) -> Correction:
        """The strategy's part in this round. proximal: of `proximal`. drift: SCAFFOLD's c − c_i."""


class Seen:
    """A model of which a wrapper changes a little; everything else is as it is."""

    def __init__(self, inner: Weights) -> None:
        self._inner = inner

    @property
    def schema(self) -> Schema:
        return self._inner.schema

    @property
    def sharded(self) -> bool:
        return self._inner.sharded

    def names(self) -> Mapping[str, str]:
        return self._inner.names()

    def fill(self, name: str, tiles: Tiles) -> None:
        self._inner.fill(name, tiles)

    def values(self, name: str) -> Iterator[tuple[int, Array]]:
        return self._inner.values(name)

    def deltas(self, name: str, base: Tiles, unit: int = 1) -> Iterator[tuple[int, Array]]:
        return self._inner.deltas(name, base, unit)

    def own(self, name: str) -> tuple[str, Iterator[tuple[int, Array]]]:
        return self._inner.own(name)

    def proximal(
        self, mu: float, names: Collection[str] | None = None, around: Weights | None = None
    ) -> Proximal:
        return self._inner.proximal(mu, names, around)

    def correction(
        self, strategy: str, proximal: Proximal, drift: Iterable[tuple[str, Tiles]]
    ) -> Correction:
        return self._inner.correction(strategy, proximal, drift)


def tile_starts(count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each tile of a tensor of `count` elements; none for an empty one."""
    for start in range(0, count, TILE):
        yield start, min(start + TILE, count)


def within(tiles: Tiles, start: int, stop: int) -> Iterator[tuple[int, Array]]:
    """Elements [start, stop) only; a file is read nowhere else."""
    if isinstance(tiles, Ranged):
        yield from tiles.between(start, stop)
        return
    for at, tile in tiles:
        first, last = max(0, start - at), min(tile.size, stop - at)
        if first < last:
            yield at + first, tile[first:last]


def runs(tiles: Tiles, unit: int | None) -> Iterator[tuple[int, Array]]:
    """The same values in pieces that begin at multiples of `unit` elements; None: as they come."""
    if unit is None:
        yield from tiles
        return
    begin, rest = 0, np.zeros(0, np.float32)
    for start, tile in tiles:
        begin = start - rest.size
        values = np.concatenate([rest, tile]) if rest.size else tile
        whole = values.size - values.size % unit
        if whole:
            yield begin, values[:whole]
        begin, rest = begin + whole, values[whole:]
    if rest.size:
        yield begin, rest


def published_dtype(name: str, dtype: str) -> str:
    return "F32" if dtype in FLOATING else dtype
