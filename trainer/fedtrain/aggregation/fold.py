"""The fold: the accepted updates become the next global model, one tile at a time.

A tile's pieces are read from each contribution in participant order, hashed while the cache still
holds them, and summed elementwise. Tiles are independent, so the bytes are the same for any number
of threads. The fold never rejects: a tile that differs from what inspection saw aborts it.
"""

import hashlib
import os
import resource
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fedtrain.aggregation.inspection import Inspected, Intake, Refused, open_folder
from fedtrain.contract import UPDATE_FILE, update_folder
from fedtrain.digest import Digest, tensor_tiles
from fedtrain.errors import DataError
from fedtrain.layout import TensorFileError, TensorInfo, numpy_dtype
from fedtrain.schema import Kind, TensorSpec
from fedtrain.strategies import Strategy
from fedtrain.strategies.mean import weighted_mean
from fedtrain.tensorfile import (
    PIECE_BYTES,
    TensorFile,
    TensorWriter,
    bytes_of,
    open_regular,
    read_exactly,
)

Array = np.ndarray[Any, Any]


class ChangedAfterInspection(Exception):
    """A contribution is not what was inspected any more."""

    def __init__(self, participant: str) -> None:
        super().__init__(f"the update of {participant} changed after its inspection")
        self.participant = participant


class Contribution:
    """An accepted update, open for reading at the offsets that inspection found."""

    def __init__(self, intake: Intake, inspected: Inspected) -> None:
        self.participant = inspected.participant
        self.offsets = inspected.offsets
        self.tiles = inspected.tiles
        relative = update_folder(inspected.participant, intake.round, inspected.attempt)
        try:
            folder = open_folder(intake.root, relative)
            try:
                self._fd = open_regular(UPDATE_FILE, folder)
            finally:
                os.close(folder)
        except (Refused, TensorFileError):
            raise ChangedAfterInspection(self.participant) from None

    def read(self, tensor: int, start: int, out: Array) -> None:
        """Fill `out` with the elements from `start` on of the schema's tensor number `tensor`."""
        offset = self.offsets[tensor] + start * out.itemsize
        try:
            read_exactly(self._fd, offset, bytes_of(out))
        except TensorFileError:
            raise ChangedAfterInspection(self.participant) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class _Tile:
    """tensor: its number in the schema. number: of this tile among all tiles of the model."""

    tensor: int
    spec: TensorSpec
    info: TensorInfo
    index: int
    start: int
    stop: int
    number: int


def open_contributions(
    opened: ExitStack, intake: Intake, inspected: Sequence[Inspected]
) -> tuple[Contribution, ...]:
    """Open them all until `opened` is left; a thousand may be more than the soft limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return tuple(opened.enter_context(Contribution(intake, one)) for one in inspected)


class Fold:
    """base: the open global model. weights: fp32, one per contribution, sum 1."""

    def __init__(
        self,
        *,
        base: TensorFile,
        contributions: Sequence[Contribution],
        weights: Array,
        strategy: Strategy,
        writer: TensorWriter,
    ) -> None:
        self._base = base
        self._contributions = contributions
        self._weights = weights
        self._strategy = strategy
        self._writer = writer
        self._base_digest = Digest()
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, specs: Sequence[TensorSpec], threads: int) -> str:
        """Fold everything into the writer; the digest of the base as it was read.

        Raises ChangedAfterInspection, DataError (ModelNotFinite), OSError (ENOSPC).
        """
        tiles = self._tiles(specs)
        with ThreadPoolExecutor(max(1, threads), "fold") as pool:
            workers = [pool.submit(self._work, tiles) for _ in range(threads)]
            try:
                for worker in workers:
                    worker.result()
            finally:
                self._stop.set()
        return self._base_digest.hexdigest()

    def _tiles(self, specs: Sequence[TensorSpec]) -> Iterator[_Tile]:
        number = 0
        for tensor, spec in enumerate(specs):
            info = self._base.tensors[spec.name]
            for index, start, stop in tensor_tiles(info):
                yield _Tile(tensor, spec, info, index, start, stop, number)
                number += 1

    def _work(self, tiles: Iterator[_Tile]) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    tile = next(tiles, None)
                if tile is None:
                    return
                self._fold_tile(tile)
        except BaseException:
            self._stop.set()
            raise

    def _fold_tile(self, tile: _Tile) -> None:
        dtype = numpy_dtype(tile.info.dtype)
        step = PIECE_BYTES // dtype.itemsize
        hashes = [hashlib.sha256() for _ in self._contributions]
        base_hash = hashlib.sha256()
        buffer, base_buffer = np.empty((2, min(step, tile.stop - tile.start)), dtype)
        for at in range(tile.start, tile.stop, step):
            if self._stop.is_set():
                return
            length = min(step, tile.stop - at)
            base = base_buffer[:length]
            self._base.read_into(tile.info.name, at, base)
            base_hash.update(bytes_of(base))
            piece = self._piece(tile, at, base, buffer[:length], hashes)
            self._writer.write(tile.info.name, at, piece)
        for contribution, found in zip(self._contributions, hashes, strict=True):
            if found.digest() != contribution.tiles[32 * tile.number : 32 * tile.number + 32]:
                raise ChangedAfterInspection(contribution.participant)
        info = tile.info
        with self._lock:
            sha256 = base_hash.digest()
            self._base_digest.update(info.name, info.dtype, info.shape, tile.index, sha256)

    def _piece(self, tile: _Tile, at: int, base: Array, buffer: Array, hashes: list[Any]) -> Array:
        """The next global model's elements from `at` on, as many as `base` has."""

        def values() -> Iterator[Array]:
            for contribution, running in zip(self._contributions, hashes, strict=True):
                contribution.read(tile.tensor, at, buffer)
                running.update(bytes_of(buffer))
                yield buffer

        with np.errstate(over="ignore"):  # an overflow is found just below
            piece = self._combine(tile.spec.kind, values(), base)
        if tile.spec.kind != "integer" and not np.isfinite(piece).all():
            name = tile.spec.name[:80]
            raise DataError("ModelNotFinite", f"tensor {name!a} of the next model is not finite")
        return piece

    def _combine(self, kind: Kind, values: Iterator[Array], base: Array) -> Array:
        if kind == "parameter":
            return self._strategy.step(base, self._strategy.reduce(values, self._weights))
        if kind == "buffer":
            return np.add(base, weighted_mean(values, self._weights))
        highest = next(values).copy()
        for value in values:
            np.maximum(highest, value, out=highest)
        return highest
