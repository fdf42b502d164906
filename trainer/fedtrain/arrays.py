"""A model that is a mapping of names to numpy arrays; torch is never loaded for it."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fedtrain.correction import ArrayCorrection
from fedtrain.errors import ContractError
from fedtrain.layout import FLOATING, TensorFileError, dtype_name
from fedtrain.proximal import ArrayProximal
from fedtrain.schema import Schema, TensorSpec
from fedtrain.weights import Array, Tiles, Weights, published_dtype, tile_starts


class ArrayWeights:
    """A mapping of names to numpy arrays, changed in place."""

    sharded = False

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = arrays
        self.schema = Schema.of(_spec(name, array) for name, array in arrays.items())
        self._given = {name: (array.dtype, array.shape) for name, array in arrays.items()}

    def names(self) -> Mapping[str, str]:
        return {name: name for name in self._arrays}

    def fill(self, name: str, tiles: Tiles) -> None:
        flat = self._arrays[name].reshape(-1)
        for start, tile in tiles:
            flat[start : start + tile.size] = tile

    def _flat(self, name: str) -> Array:
        """The array, still of the shape that `rounds` was given. Raises ContractError."""
        array: Array = self._arrays[name]
        if (array.dtype, array.shape) != self._given[name]:
            raise ContractError(
                "ModelUnsupported",
                f"{name!r} became {array.dtype}{list(array.shape)}; change the arrays in place",
            )
        return array.reshape(-1)

    def values(self, name: str) -> Iterator[tuple[int, Array]]:
        flat = self._flat(name)
        for start, stop in tile_starts(flat.size):
            tile = flat[start:stop]
            yield start, tile.astype(np.float32) if tile.dtype.kind == "f" else tile

    def own(self, name: str) -> tuple[str, Iterator[tuple[int, Array]]]:
        flat = self._flat(name)
        tiles = ((start, flat[start:stop]) for start, stop in tile_starts(flat.size))
        return dtype_name(flat), tiles

    def deltas(self, name: str, base: Tiles, unit: int = 1) -> Iterator[tuple[int, Array]]:
        flat = self._flat(name)
        wide = np.promote_types(flat.dtype, np.float32)
        for start, tile in base:
            local = flat[start : start + tile.size].astype(wide, copy=False)
            loaded = tile.astype(flat.dtype, copy=False).astype(wide, copy=False)
            yield start, (local - loaded).astype(np.float32, copy=False)

    def proximal(
        self, mu: float, names: Collection[str] | None = None, around: Weights | None = None
    ) -> ArrayProximal:
        begin = {
            name: array.copy() if around is None else self._filled(name, around.values(name))
            for name, array in self._arrays.items()
            if mu and array.dtype.kind == "f" and (names is None or name in names)
        }
        return ArrayProximal(self._arrays, mu, begin)

    def _filled(self, name: str, tiles: Tiles) -> Array:
        """Another array like it, with these values."""
        array: Array = np.empty_like(self._arrays[name])
        flat = array.reshape(-1)
        for start, tile in tiles:
            flat[start : start + tile.size] = tile
        return array

    def correction(
        self, strategy: str, proximal: ArrayProximal, drift: Iterable[tuple[str, Tiles]]
    ) -> ArrayCorrection:
        control = {name: self._filled(name, tiles) for name, tiles in drift}
        return ArrayCorrection(strategy, proximal, control)


def _spec(name: str, array: Any) -> TensorSpec:
    if not isinstance(name, str) or not isinstance(array, np.ndarray):
        raise ContractError(
            "ModelUnsupported",
            f"rounds(model): {name!r} holds a {type(array).__name__}; a mapping must hold numpy "
            "arrays by name, which are changed in place",
        )
    try:
        dtype = dtype_name(array)
    except TensorFileError:
        dtype = "BF16"
    if dtype == "BF16" or not (array.flags.c_contiguous and array.flags.writeable):
        raise ContractError(
            "ModelUnsupported",
            f"rounds(model): {name!r} is {array.dtype} with flags that cannot be used; it must be "
            "a writable C-contiguous array of floats, signed integers, uint8 or bool",
        )
    floating = dtype in FLOATING
    return TensorSpec(
        name=name,
        dtype=published_dtype(name, dtype),
        shape=array.shape,
        kind="parameter" if floating else "integer",
    )
