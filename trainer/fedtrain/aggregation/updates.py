"""The candidates' updates, open for reading, and a unit of them as it passes by.

The bytes that are summed are the bytes that are hashed and looked at: they are read once, a piece
at a time. Whoever turns out unsound is recorded and left out of the rest of the unit, the others go
on, so that what is found does not depend on which thread was faster.
"""

import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedtrain import pagecache
from fedtrain.aggregation.hashing import RunningTiles
from fedtrain.aggregation.inspection import Inspected, Intake, open_folder
from fedtrain.aggregation.record import Record
from fedtrain.aggregation.report import Refusal
from fedtrain.aggregation.soundness import Refused, largest_of, squares_of
from fedtrain.aggregation.sums import Sum, sum_of, widened
from fedtrain.aggregation.units import Carrier, Unit
from fedtrain.contract import UPDATE_FILE, update_folder
from fedtrain.layout import FLOATING, TensorFileError, numpy_dtype
from fedtrain.tensorfile import bytes_of, open_regular, read_exactly

Array = np.ndarray[Any, Any]


class Bench:
    """A thread's arrays, kept from piece to piece."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self._sums: dict[str, Sum] = {}

    def sum_of(self, precision: str, name: str = "") -> Sum:
        """This thread's sum of that name."""
        if name not in self._sums:
            self._sums[name] = sum_of(precision)
        return self._sums[name]

    def array(self, name: str, count: int, dtype: Any = np.float32) -> Array:
        """`count` elements, of which nothing is known."""
        nbytes = count * np.dtype(dtype).itemsize
        if name not in self._arrays or self._arrays[name].size < nbytes:
            self._arrays[name] = np.empty(nbytes, np.uint8)
        return self._arrays[name][:nbytes].view(dtype)


@dataclass(frozen=True, slots=True)
class Update:
    """candidate: its number. offsets: of each carrier in the file, in bytes."""

    candidate: int
    fd: int
    offsets: tuple[int, ...]

    def read(self, carrier: Carrier, start: int, out: Array) -> None:
        """Fill `out` with the carrier's elements from `start` on. Raises TensorFileError."""
        read_exactly(self.fd, self._at(carrier, start), bytes_of(out))

    def fetch(self, carrier: Carrier, start: int, stop: int) -> None:
        """These elements will be read soon."""
        item = numpy_dtype(carrier.dtype).itemsize
        pagecache.fetch(self.fd, self._at(carrier, start), (stop - start) * item)

    def forget(self, carrier: Carrier, start: int, stop: int) -> None:
        """These elements have probably been read for the last time."""
        item = numpy_dtype(carrier.dtype).itemsize
        if stop > start:
            pagecache.forget(self.fd, self._at(carrier, start), (stop - start) * item)

    def _at(self, carrier: Carrier, start: int) -> int:
        return self.offsets[carrier.number] + start * numpy_dtype(carrier.dtype).itemsize


def open_updates(
    opened: ExitStack, intake: Intake, inspected: Mapping[int, Inspected]
) -> tuple[dict[int, Update], list[Refusal]]:
    """Open them all until `opened` is left; a thousand may be more than the soft limit allows.

    What is not there any more since intake is refused.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    updates, refusals = {}, []
    for number, one in inspected.items():
        try:
            folder = open_folder(
                intake.root, update_folder(one.participant, intake.round, one.attempt)
            )
            try:
                fd = open_regular(UPDATE_FILE, folder)
            finally:
                os.close(folder)
        except (Refused, TensorFileError) as refused:
            sentence = str(refused)
            refusals.append(Refusal(candidate=number, reason=refused.reason, sentence=sentence))
            continue
        opened.callback(os.close, fd)
        updates[number] = Update(number, fd, one.offsets)
    return updates, refusals


@dataclass(slots=True)
class UnitReading:
    """One unit of all updates of a pass: read piece by piece, hashed, looked at, decoded.

    scales: fp32 by which a parameter's values are multiplied, or None. unsound: their positions.
    sample: (K, n), into which the first n values of what is read next go, or None.
    """

    unit: Unit
    updates: Sequence[Update]
    bench: Bench
    record: Record
    scales: Array | None = None
    largest: bool = False
    unsound: set[int] = field(default_factory=set)
    sample: Array | None = None
    _tiles: list[list[RunningTiles]] = field(default_factory=list)
    _squares: list[float] = field(default_factory=list)
    _largest: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        carriers = self.unit.tensor.carriers
        self._tiles = [[RunningTiles() for _ in carriers] for _ in self.updates]
        self._squares = [0.0] * len(self.updates)
        self._largest = [0.0] * len(self.updates)

    def values(
        self, start: int, stop: int, stack: Array | None = None
    ) -> Iterator[tuple[int, Array]]:
        """(position, flat values) of each sound update; valid until the next is asked for.

        stack: (K, stop - start), into whose rows the values are put.
        """
        for position, update in enumerate(self.updates):
            if position in self.unsound:
                continue
            row = None if stack is None else stack[position]
            try:
                value = self._values(position, update, start, stop, row)
            except (Refused, TensorFileError) as refused:
                self.unsound.add(position)
                at = (self.unit.tensor.number, start)
                self.record.refuse(update.candidate, refused.reason, str(refused), at)
                continue
            if self.sample is not None:
                np.copyto(self.sample[position], value[: self.sample.shape[1]])
            yield position, value

    def finish(self, *others: float) -> None:
        """Everything of the unit has been read: leave the hashes and the measurements.

        others: the largest magnitude of each tensor that will be summed after the updates.
        """
        self.leave_hashes()
        largest = [*self._largest, *others] if self.largest else None
        self.record.measured(self.unit.tensor.spec.name, self.unit.start, self.squares, largest)

    def leave_hashes(self) -> None:
        """Everything of the unit has been read."""
        for update, tiles in zip(self.updates, self._tiles, strict=True):
            for carrier, running in zip(self.unit.tensor.carriers, tiles, strict=True):
                source = str(update.candidate)
                self.record.hashed(source, carrier.name, self.unit.start, running.finish())

    @property
    def squares(self) -> list[float]:
        """Of each update: the sum of squares of what was read, 0 unless it is a parameter."""
        parameter = self.unit.tensor.spec.kind == "parameter"
        return self._squares if parameter else [0.0] * len(self.updates)

    def forget(self) -> None:
        """Drop the unit from the page cache."""
        unit = self.unit
        for update in self.updates:
            for carrier in unit.tensor.carriers:
                update.forget(carrier, *unit.tensor.run(carrier, unit.start, unit.stop))

    def _values(
        self, position: int, update: Update, start: int, stop: int, row: Array | None
    ) -> Array:
        tensor = self.unit.tensor
        parts = [
            self._part(position, update, carrier, start, stop, row) for carrier in tensor.carriers
        ]
        if tensor.spec.dtype not in FLOATING:
            return parts[0]
        value = parts[0]
        if tensor.codec is not None:
            try:
                value = tensor.codec.decode(tuple(parts), stop - start)
            except ValueError as error:
                raise Refused(
                    "EncodingInvalid", f"tensor {tensor.spec.name[:80]!a}: {error}"
                ) from None
            value = widened(value, self.bench.array("wide", stop - start))
        self._squares[position] = squares_of(value, tensor.spec.name, self._squares[position])
        if self.largest:
            self._largest[position] = max(self._largest[position], largest_of(value))
        scale = np.float32(1)
        if self.scales is not None and tensor.spec.kind == "parameter":
            scale = self.scales[position]
        if row is not None and (value is not row or scale != 1):
            value = np.multiply(value, scale, out=row)
        elif scale != 1:
            value = np.multiply(value, scale, out=self.bench.array("scaled", value.size))
        return value

    def _part(
        self,
        position: int,
        update: Update,
        carrier: Carrier,
        start: int,
        stop: int,
        row: Array | None,
    ) -> Array:
        """Read and hash what carries [start, stop), and ask for what comes after it."""
        unit, dtype = self.unit, numpy_dtype(carrier.dtype)
        first, last = unit.tensor.run(carrier, start, stop)
        if row is not None and carrier.part is None:
            part = row
        else:
            part = self.bench.array(f"part {carrier.part}", last - first, dtype)
        update.read(carrier, first, part)
        if stop < unit.stop:
            ahead = min(unit.stop, stop + stop - start)
            update.fetch(carrier, *unit.tensor.run(carrier, stop, ahead))
        data = bytes_of(part)
        self._tiles[position][carrier.number - unit.tensor.carriers[0].number].update(data)
        if carrier.dtype == "BOOL" and part.size and int(part.view(np.uint8).max()) > 1:
            raise TensorFileError(
                "NotBoolean", f"{carrier.name[:80]!a} holds bytes other than 0, 1"
            )
        return part
