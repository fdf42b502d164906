"""The fold: the updates that stand become the next global model, a piece at a time.

A piece of each update is summed, elementwise and in participant order, and the server takes its
step from the base's piece to the next model's. Pieces are independent of each other, so the bytes
are the same for any number of threads. If somebody turns out unsound on the way, what was written
means nothing, and the fold is done again without them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedtrain.aggregation.hashing import RunningTiles
from fedtrain.aggregation.passes import UnitPass
from fedtrain.aggregation.record import Record
from fedtrain.aggregation.server import ServerState, tensor_name
from fedtrain.aggregation.sums import Sum
from fedtrain.aggregation.units import Carried, Unit, pieces
from fedtrain.aggregation.updates import Bench, UnitReading, Update
from fedtrain.errors import DataError, TryAgain
from fedtrain.layout import TensorFileError, TensorInfo, numpy_dtype
from fedtrain.schema import TensorSpec
from fedtrain.strategies import Strategy
from fedtrain.tensorfile import TensorWriter, bytes_of

Array = np.ndarray[Any, Any]
SAMPLE = 1024
"""Values of a unit, its first ones, whose directions are compared."""


class BaseModel(Protocol):
    """The open global model: one file or many."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def read_into(self, name: str, start: int, out: Array) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """How the updates of a fold are put together, decided before any of them is summed.

    coefficients: fp64 (K,), or (K+1,) with the strategy's center as last. buffers: fp64 (K,).
    scales: fp32 (K,) of the norm bound, or None. exponents: tensor → scale of the exact sum.
    slots: of the strategy's slots that are sums, too, fp64 (K+1,), the slot itself as last.
    """

    coefficients: Array
    buffers: Array
    slots: Mapping[str, Array]
    scales: Array | None
    exponents: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a fold reads and writes besides updates; `state_file` is None without server state."""

    strategy: Strategy
    precision: str
    base: BaseModel
    state: ServerState
    model_file: TensorWriter
    state_file: TensorWriter | None


class Fold(UnitPass):
    """One pass over the updates that writes the next model."""

    def __init__(
        self,
        tensors: Sequence[Carried],
        updates: Sequence[Update],
        record: Record,
        *,
        piece: int,
        weighting: Weighting,
        server: Server,
    ) -> None:
        super().__init__(tensors, updates, record)
        self._piece = piece
        self._weighting = weighting
        self._server = server

    def work(self, number: int, unit: Unit, bench: Bench) -> None:
        server, spec = self._server, unit.tensor.spec
        reading = UnitReading(unit, self.updates, bench, self.record, self._weighting.scales)
        base_tiles = RunningTiles()
        slots = sorted(server.strategy.slots) if spec.kind == "parameter" else []
        slot_tiles = {slot: RunningTiles() for slot in slots}
        for start, stop in pieces(unit, self._piece):
            if self.interrupted:
                return
            if self.record.spoiled:
                for _ in reading.values(start, stop):
                    pass
                continue
            base = bench.array("base", stop - start, numpy_dtype(spec.dtype))
            self._read_base(spec.name, start, base)
            base_tiles.update(bytes_of(base))
            state = {slot: bench.array(f"slot {slot}", stop - start) for slot in slots}
            for slot, values in state.items():
                server.state.read(slot, spec, start, values)
                slot_tiles[slot].update(bytes_of(values))
            reading.sample = self._sample(unit, start, stop, bench)
            combined = self._combined(reading, start, stop, state, bench)
            if reading.unsound:
                continue
            if reading.sample is not None:
                self._align(spec.name, start, reading.sample, combined)
            if spec.kind == "parameter":
                combined = server.strategy.step(base, combined, state)
            elif spec.kind == "buffer":
                np.add(base, combined, out=combined)
            self._write(unit, start, combined, state)
        reading.finish()
        reading.forget()
        self.record.hashed("base", spec.name, unit.start, base_tiles.finish())
        for slot, tiles in slot_tiles.items():
            self.record.hashed("state", tensor_name(slot, spec.name), unit.start, tiles.finish())
        server.model_file.write_out(spec.name, unit.start, unit.stop)

    def _sample(self, unit: Unit, start: int, stop: int, bench: Bench) -> Array | None:
        """Where the first values of a parameter's unit are kept, until it is known what all of them
        come to: a cosine of everything would have to read everything once more."""
        count = min(stop, unit.start + SAMPLE) - start
        if count <= 0 or unit.tensor.spec.kind != "parameter":
            return None
        shape = len(self.updates), count
        return bench.array("sample", shape[0] * shape[1]).reshape(shape)

    def _align(self, name: str, start: int, sample: Array, combined: Array) -> None:
        wide, whole = sample.astype(np.float64), combined[: sample.shape[1]].astype(np.float64)
        products, squares = np.einsum("ij,j->i", wide, whole), np.einsum("ij,ij->i", wide, wide)
        sums = [*products.tolist(), *squares.tolist(), float(np.einsum("i,i->", whole, whole))]
        self.record.aligned(name, start, sums)

    def _read_base(self, name: str, start: int, out: Array) -> None:
        try:
            self._server.base.read_into(name, start, out)
        except TensorFileError as error:
            raise TryAgain("BaseUnreadable", f"the base's {name[:80]!a}: {error}") from error

    def _combined(
        self,
        reading: UnitReading,
        start: int,
        stop: int,
        state: Mapping[str, Array],
        bench: Bench,
    ) -> Array:
        """What the updates come to; means nothing once one of them is unsound."""
        spec = reading.unit.tensor.spec
        if spec.kind == "integer":
            return _highest(reading, start, stop, bench)
        if self._server.strategy.coordinatewise:
            return self._coordinatewise(reading, start, stop, bench)
        weighting = self._weighting
        weights = weighting.coefficients if spec.kind == "parameter" else weighting.buffers
        total = bench.sum_of(self._server.precision)
        total.start(stop - start, weighting.exponents.get(spec.name, 0))
        sums = self._slot_sums(spec, stop - start, bench)
        for position, value in reading.values(start, stop):
            if weights[position]:
                total.add(value, float(weights[position]))
            for slot, running in sums.items():
                running.add(value, float(weighting.slots[slot][position]))
        for slot, running in sums.items():
            running.add(state[slot], float(weighting.slots[slot][-1]))
            np.copyto(state[slot], running.result())
        center = self._server.strategy.center
        if center is not None and spec.kind == "parameter" and weights[-1]:
            total.add(state[center], float(weights[-1]))
        return total.result()

    def _slot_sums(self, spec: TensorSpec, count: int, bench: Bench) -> dict[str, Sum]:
        """Begun, for those slots that are sums of a parameter's deltas."""
        sums = {}
        for slot in self._weighting.slots if spec.kind == "parameter" else ():
            sums[slot] = bench.sum_of(self._server.precision, slot)
            sums[slot].start(count)
        return sums

    def _coordinatewise(self, reading: UnitReading, start: int, stop: int, bench: Bench) -> Array:
        shape = len(self.updates), stop - start
        stack = bench.array("stack", shape[0] * shape[1]).reshape(shape)
        for _ in reading.values(start, stop, stack):
            pass
        combined: Array = stack[0]
        if not reading.unsound:
            combined = self._server.strategy.combine(stack, self._weighting.coefficients)
        return combined

    def _write(self, unit: Unit, start: int, piece: Array, state: Mapping[str, Array]) -> None:
        spec = unit.tensor.spec
        if spec.kind != "integer":
            check_finite(piece, spec.name)
        self._server.model_file.write(spec.name, start, piece)
        for slot, values in state.items():
            name = tensor_name(slot, spec.name)
            check_finite(values, name)
            assert self._server.state_file is not None, "a strategy with slots has a state file"
            self._server.state_file.write(name, start, values)


def _highest(reading: UnitReading, start: int, stop: int, bench: Bench) -> Array:
    highest: Array | None = None
    for _, value in reading.values(start, stop):
        if highest is None:
            highest = bench.array("highest", value.size, value.dtype)
            np.copyto(highest, value)
        else:
            np.maximum(highest, value, out=highest)
    return np.empty(0) if highest is None else highest


def check_finite(piece: Array, name: str) -> None:
    """A sum of finite numbers may overflow, but one of others is never finite."""
    if not np.isfinite(piece.sum()) and not np.isfinite(piece).all():
        raise DataError("ModelNotFinite", f"tensor {name[:80]!a} of the next model is not finite")
