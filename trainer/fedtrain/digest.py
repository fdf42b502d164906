"""The layout-free digest of a model: the same for one file, many shards and any order of tensors.

A tensor's row-major, little-endian bytes are cut into tiles of `contract.TILE_BYTES`, the last one
shorter; an empty tensor is one tile of no bytes. The digest is the sha256 over one line per
tensor, sorted by name, each the compact JSON list [name, dtype, shape, [sha256 of each tile]].
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from fedtrain.contract import TILE_BYTES
from fedtrain.layout import TensorInfo, item_size


@dataclass(slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    tiles: dict[int, str] = field(default_factory=dict)


class Digest:
    """Collects tiles' hashes in any order, from any rank or thread, and hashes them once.

    >>> digest = Digest()
    >>> digest.update("bias", "F32", (2,), 0, hashlib.sha256(bytes(8)).digest())
    >>> digest.hexdigest()[:15]
    'sha256:edf35fec'
    """

    def __init__(self) -> None:
        self._tensors: dict[str, _Tensor] = {}

    def update(
        self, name: str, dtype: str, shape: tuple[int, ...], tile_index: int, sha256: str | bytes
    ) -> None:
        """Record one tile's sha256. Raises ValueError if the tensor was announced differently."""
        tensor = self._tensors.setdefault(name, _Tensor(dtype, tuple(shape)))
        if (tensor.dtype, tensor.shape) != (dtype, tuple(shape)):
            raise ValueError(f"{name} was {tensor.dtype} {tensor.shape}, now {dtype} {shape}")
        tensor.tiles[tile_index] = sha256.hex() if isinstance(sha256, bytes) else sha256

    def hexdigest(self) -> str:
        """`sha256:<hex>` of everything recorded. Raises ValueError if a tile is missing."""
        whole = hashlib.sha256()
        for name, tensor in sorted(self._tensors.items()):
            tiles = tile_count(tensor.dtype, tensor.shape)
            if sorted(tensor.tiles) != list(range(tiles)):
                raise ValueError(f"{name}: {len(tensor.tiles)} of {tiles} tiles were hashed")
            hashes = [tensor.tiles[index] for index in range(tiles)]
            line = json.dumps(
                [name, tensor.dtype, list(tensor.shape), hashes], separators=(",", ":")
            )
            whole.update(line.encode() + b"\n")
        return f"sha256:{whole.hexdigest()}"


def tile_count(dtype: str, shape: tuple[int, ...]) -> int:
    """How many tiles a tensor has; at least one, so that an empty tensor is part of a digest."""
    nbytes = item_size(dtype)
    for length in shape:
        nbytes *= length
    return max(1, -(-nbytes // TILE_BYTES))


def tensor_tiles(info: TensorInfo) -> Iterator[tuple[int, int, int]]:
    """(index, start, stop) of each tile of a tensor; start and stop count elements."""
    step = TILE_BYTES // item_size(info.dtype)
    for index in range(tile_count(info.dtype, info.shape)):
        yield index, index * step, min((index + 1) * step, info.count)
