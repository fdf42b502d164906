"""The digest of a file of which every rank has seen some elements only.

A tile's sha256 takes all of its bytes in order, but ranks own rows, and rows end anywhere within
tiles. So every rank hashes what it reads or writes in *pieces* that lie within tiles. A tile that
all ranks saw whole is settled. Of every other tile some rank, in turn, reads all bytes once more:
it hashes the tile, and each piece of it that a rank reported, which has to be what that rank saw.
The digest is thus one of the very bytes that were used, and no bytes travel between ranks.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedtrain.collective import Ranks
from fedtrain.contract import TILE_BYTES
from fedtrain.digest import Digest, tensor_tiles
from fedtrain.layout import TensorInfo, item_size

PIECE_BYTES = 1024 * 1024
"""What is read at once where a tile is looked at again."""

Piece = tuple[int, int, bytes]
"""(start, stop, sha256): elements of a flattened tensor, all of them in one tile."""

Read = Callable[[str, int, int], memoryview]
"""The bytes of elements [start, stop) of a tensor, as they lie in the file now."""


class Differs(ValueError):
    """What lies in the file is not what a rank read from it, or wrote into it."""


@dataclass(slots=True)
class _Open:
    """The piece that is growing; `stop` is the element at which it would go on."""

    start: int
    stop: int
    sha256: Any = field(default_factory=hashlib.sha256)


class Pieces:
    """What this rank has seen: neighbours within a tile are joined while they come in order."""

    def __init__(self) -> None:
        self._closed: dict[str, list[Piece]] = {}
        self._open: dict[str, _Open] = {}

    def add(self, info: TensorInfo, start: int, data: memoryview) -> None:
        """`data` are the tensor's bytes from element `start` on; they end within the same tile."""
        step = TILE_BYTES // item_size(info.dtype)
        last = self._open.get(info.name)
        if last is None or last.stop != start or start % step == 0:
            self._close(info.name)
            last = self._open[info.name] = _Open(start, start)
        last.sha256.update(data)
        last.stop += len(data) // item_size(info.dtype)

    def report(self) -> dict[str, list[Piece]]:
        """All pieces by tensor."""
        for name in list(self._open):
            self._close(name)
        return self._closed

    def _close(self, name: str) -> None:
        last = self._open.pop(name, None)
        if last is not None and last.stop > last.start:
            piece = last.start, last.stop, last.sha256.digest()
            self._closed.setdefault(name, []).append(piece)


def joint_digest(
    ranks: Ranks, tensors: Mapping[str, TensorInfo], pieces: Pieces, read: Read, *, whole: bool
) -> str:
    """The digest of the file with these `tensors`, the same on every rank; collective.

    whole: every element must be part of a piece; else what nobody saw is read here. Raises Differs
    on the rank that finds out, ValueError on all if elements are missing.
    """
    seen: dict[str, list[Piece]] = {}
    for told in ranks.gather(pieces.report()):
        for name, found in told.items():
            seen.setdefault(name, []).extend(found)
    digest = Digest()
    unsettled = []
    for info in tensors.values():
        found = sorted(set(seen.get(info.name, ())))
        if whole:
            _covered(info, found)
        by_tile: dict[int, list[Piece]] = {}
        for piece in found:
            by_tile.setdefault(piece[0] // (TILE_BYTES // item_size(info.dtype)), []).append(piece)
        for index, start, stop in tensor_tiles(info):
            in_tile = by_tile.get(index, [])
            if len(in_tile) == 1 and in_tile[0][:2] == (start, stop):
                digest.update(info.name, info.dtype, info.shape, index, in_tile[0][2])
            else:
                unsettled.append((info, index, start, stop, in_tile))
    mine = {
        (info.name, index): _look(info, start, stop, in_tile, read)
        for info, index, start, stop, in_tile in unsettled[ranks.rank :: ranks.world]
    }
    for hashes in ranks.gather(mine):
        for (name, index), sha256 in hashes.items():
            info = tensors[name]
            digest.update(name, info.dtype, info.shape, index, sha256)
    return digest.hexdigest()


def _look(info: TensorInfo, begin: int, end: int, pieces: list[Piece], read: Read) -> bytes:
    """The sha256 of a tile, once every piece of it has been found in it."""
    item = item_size(info.dtype)
    step = PIECE_BYTES // item
    whole, found = hashlib.sha256(), [hashlib.sha256() for _ in pieces]
    for at in range(begin, end, step):
        data = read(info.name, at, min(at + step, end))
        whole.update(data)
        for (start, stop, _), running in zip(pieces, found, strict=True):
            running.update(data[max(0, start - at) * item : max(0, stop - at) * item])
    for (start, stop, sha256), running in zip(pieces, found, strict=True):
        if running.digest() != sha256:
            raise Differs(f"{info.name!r}, elements {start} to {stop}")
    return whole.digest()


def _covered(info: TensorInfo, found: list[Piece]) -> None:
    reached = 0
    for start, stop, _ in found:
        if start > reached:
            break
        reached = max(reached, stop)
    if reached < info.count:
        raise ValueError(f"{info.name}: elements from {reached} on were never written")
