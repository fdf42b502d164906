"""A model as named tensors that are read and written tile by tile, whatever framework holds it.

`weights_of(model)` chooses: a mapping of numpy arrays is `ArrayWeights`, here; anything else is a
torch module, and `fedtrain.checkpoint` is imported for it. Tiles are (start, array) pairs in
elements of the flattened tensor; floating values travel as float32, integers and bools as they are.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from fedtrain.contract import TILE_BYTES
from fedtrain.errors import ContractError
from fedtrain.layout import FLOATING, TensorFileError, dtype_name
from fedtrain.schema import Schema, TensorSpec

Array = np.ndarray[Any, Any]
Tiles = Iterable[tuple[int, Array]]
TILE = TILE_BYTES // 4
"""Elements moved at once: a 16 MiB tile of float32, so that no tile is ever hashed in two parts."""


class Weights(Protocol):
    """What the session does with a model: describe it, fill it, read it, and subtract from it."""

    @property
    def schema(self) -> Schema:
        """As published: floating tensors in F32, tied names as aliases."""

    def names(self) -> Mapping[str, str]:
        """Every name (aliases too) and the name in `schema` of the tensor that it stands for."""

    def fill(self, name: str, tiles: Tiles) -> None:
        """Overwrite a tensor in place; dtype and device stay what they are."""

    def values(self, name: str) -> Iterator[tuple[int, Array]]:
        """The tensor's values as they would be published."""

    def deltas(self, name: str, base: Tiles) -> Iterator[tuple[int, Array]]:
        """Local minus base in float32, where base is first rounded to the model's own dtype.

        The subtraction is from what was loaded: for a bf16 module that is the bf16 of the global
        value, so that a step too small for bf16 is zero and not minus the rounding error.
        """


def weights_of(model: Any) -> Weights:
    """The tensors of a torch module or of a mapping of numpy arrays. Raises ContractError."""
    if isinstance(model, Mapping):
        return ArrayWeights(model)
    if hasattr(model, "named_parameters"):
        from fedtrain.checkpoint import ModuleWeights

        return ModuleWeights(model)
    kind = type(model).__name__
    raise ContractError(
        "ModelUnsupported",
        f"rounds(model): a {kind} is neither a torch module nor a mapping of numpy arrays",
    )


def tile_starts(count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each tile of a tensor of `count` elements; none for an empty one."""
    for start in range(0, count, TILE):
        yield start, min(start + TILE, count)


def published_dtype(name: str, dtype: str) -> str:
    return "F32" if dtype in FLOATING else dtype


class ArrayWeights:
    """A mapping of names to numpy arrays, changed in place; torch is never loaded for it."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = arrays
        self.schema = Schema.of(_spec(name, array) for name, array in arrays.items())

    def names(self) -> Mapping[str, str]:
        return {name: name for name in self._arrays}

    def fill(self, name: str, tiles: Tiles) -> None:
        flat = self._arrays[name].reshape(-1)
        for start, tile in tiles:
            flat[start : start + tile.size] = tile

    def values(self, name: str) -> Iterator[tuple[int, Array]]:
        flat = self._arrays[name].reshape(-1)
        for start, stop in tile_starts(flat.size):
            tile = flat[start:stop]
            yield start, tile.astype(np.float32) if tile.dtype.kind == "f" else tile

    def deltas(self, name: str, base: Tiles) -> Iterator[tuple[int, Array]]:
        flat = self._arrays[name].reshape(-1)
        wide = np.promote_types(flat.dtype, np.float32)
        for start, tile in base:
            local = flat[start : start + tile.size].astype(wide)
            yield start, (local - tile.astype(flat.dtype).astype(wide)).astype(np.float32)


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
