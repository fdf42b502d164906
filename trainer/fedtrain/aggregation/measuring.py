"""The measuring pass: what a strategy has to know of all updates before any of them is summed.

Norms come with the look at every value. Inner products are taken in fp64 over runs whose bounds
depend on the number of updates alone, so that they are the same for any number of threads and
shards; one BLAS product of a single thread each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedtrain.aggregation.passes import UnitPass
from fedtrain.aggregation.record import Record
from fedtrain.aggregation.server import ServerState
from fedtrain.aggregation.soundness import largest_of
from fedtrain.aggregation.units import ROW, Carried, Unit, pieces
from fedtrain.aggregation.updates import Bench, UnitReading, Update

Array = np.ndarray[Any, Any]
WIDE_BYTES = 8 * 1024 * 1024
"""Of a thread's fp64 copies of all updates."""


class Measuring(UnitPass):
    """products: whether inner products are wanted; center: of this slot's tensor, too."""

    def __init__(
        self,
        tensors: Sequence[Carried],
        updates: Sequence[Update],
        record: Record,
        *,
        piece: int,
        products: bool,
        state: ServerState,
        center: str | None,
    ) -> None:
        super().__init__(tensors, updates, record)
        self._products = products
        self._state = state
        self._center = center
        self._rows = len(updates) + (center is not None)
        self._piece = max(ROW, WIDE_BYTES // (8 * self._rows)) if products else piece

    def work(self, number: int, unit: Unit, bench: Bench) -> None:
        reading = UnitReading(unit, self.updates, bench, self.record, largest=True)
        parameter = unit.tensor.spec.kind == "parameter"
        sums = np.zeros((self._rows, self._rows)) if self._products and parameter else None
        center = 0.0
        for start, stop in pieces(unit, self._piece):
            if self.interrupted:
                return
            wide = None
            if sums is not None:
                shape = self._rows, stop - start
                wide = bench.array("fp64", shape[0] * shape[1], np.float64).reshape(shape)
            for position, value in reading.values(start, stop):
                if wide is not None:
                    np.copyto(wide[position], value)
            if wide is not None and sums is not None and not reading.unsound:
                if self._center is not None:
                    slot = bench.array("center", stop - start)
                    self._state.read(self._center, unit.tensor.spec, start, slot)
                    np.copyto(wide[-1], slot)
                    center = max(center, largest_of(slot))
                sums += wide @ wide.T
        reading.finish(*([] if self._center is None else [center]))
        if self._products:
            self.record.multiplied(number, unit, sums)
