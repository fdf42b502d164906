"""Hashes of tiles, taken while the bytes pass by."""

import hashlib
from collections.abc import Iterable, Mapping

from fedtrain.contract import TILE_BYTES
from fedtrain.digest import Digest, tile_count


class RunningTiles:
    """The sha256 of each tile of a run of a tensor that comes in order and begins with a tile."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._running = hashlib.sha256()
        self._reached = 0

    def update(self, data: memoryview) -> None:
        """Take the next bytes of the run."""
        while data:
            taken = data[: TILE_BYTES - self._reached]
            self._running.update(taken)
            self._reached += len(taken)
            data = data[len(taken) :]
            if self._reached == TILE_BYTES:
                self._finish_tile()

    def finish(self) -> bytes:
        """The tiles' hashes, 32 bytes each; of an empty run the hash of nothing."""
        if self._reached or not self._done:
            self._finish_tile()
        return bytes(self._done)

    def _finish_tile(self) -> None:
        self._done += self._running.digest()
        self._running = hashlib.sha256()
        self._reached = 0


def digest_of(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], tiles: Mapping[str, str]
) -> str | None:
    """The digest of (name, dtype, shape), each with its tiles' hashes in hex; None if one lacks."""
    whole = Digest()
    for name, dtype, shape in tensors:
        text = tiles.get(name, "")
        if len(text) != 64 * tile_count(dtype, shape):
            return None
        for index in range(len(text) // 64):
            whole.update(name, dtype, shape, index, text[64 * index : 64 * index + 64])
    return whole.hexdigest()
