"""What a pass finds, collected from its threads in an order of its own."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedtrain.aggregation.report import Refusal, Report
from fedtrain.aggregation.units import Unit

Array = np.ndarray[Any, Any]


class Record:
    """Of one pass. apart: products are kept for each tensor, since shards will sum them.

    `spoiled` as soon as somebody is refused: nothing need be written any more. But everything is
    read to the end, so that one pass finds all who are unsound, however many they are.
    """

    def __init__(self, *, apart: bool = False) -> None:
        self._spoiled = threading.Event()
        self._apart = apart
        self._lock = threading.Lock()
        self._refusals: dict[int, Refusal] = {}
        self._hashes: dict[str, dict[str, dict[int, bytes]]] = {}
        self._squares: dict[str, dict[int, Sequence[float]]] = {}
        self._largest: dict[str, dict[int, Sequence[float]]] = {}
        self._alignment: dict[str, dict[int, Sequence[float]]] = {}
        self._residuals: dict[str, tuple[float, float]] = {}
        self._waiting: dict[int, tuple[str, Array | None]] = {}
        self._next = 0
        self._products: dict[str, Array] = {}
        self._tensor: tuple[str, Array] | None = None

    @property
    def spoiled(self) -> bool:
        """Somebody was refused."""
        return self._spoiled.is_set()

    def refuse(self, candidate: int, reason: str, sentence: str, at: tuple[int, int]) -> None:
        """Of what is found in a candidate, the first in the schema's order counts."""
        refusal = Refusal(candidate=candidate, reason=reason, sentence=sentence[:300], at=at)
        with self._lock:
            known = self._refusals.get(candidate)
            if known is None or at < known.at:
                self._refusals[candidate] = refusal
            self._spoiled.set()

    def hashed(self, source: str, tensor: str, start: int, tiles: bytes) -> None:
        """The hashes of a run of tiles of `tensor` of a file that begins at element `start`."""
        with self._lock:
            self._hashes.setdefault(source, {}).setdefault(tensor, {})[start] = tiles

    def measured(
        self,
        tensor: str,
        start: int,
        squares: Sequence[float],
        largest: Sequence[float] | None = None,
    ) -> None:
        """One number for each update of the pass, in order; `largest` may end with the center's.

        Of the run of `tensor` of the model that begins at element `start`.
        """
        with self._lock:
            self._squares.setdefault(tensor, {})[start] = squares
            if largest is not None:
                self._largest.setdefault(tensor, {})[start] = largest

    def aligned(self, tensor: str, start: int, sums: Sequence[float]) -> None:
        """Of the sample of `tensor` at element `start`, as `Report.alignment` has them."""
        with self._lock:
            self._alignment.setdefault(tensor, {})[start] = sums

    def off(self, pair: str, difference: float, whole: float) -> None:
        """The residual of a pair, named after its A, see `lowrank.residual`."""
        with self._lock:
            self._residuals[pair] = difference, whole

    def multiplied(self, number: int, unit: Unit, products: Array | None) -> None:
        """The inner products of unit `number` (None: it has none); summed in order of number."""
        with self._lock:
            self._waiting[number] = unit.tensor.spec.name, products
            while (ready := self._waiting.pop(self._next, None)) is not None:
                self._next += 1
                name, matrix = ready
                if matrix is not None:
                    self._add(name, matrix)

    def report(self) -> Report:
        """Everything found; call it once, when all threads are done."""
        self._close_tensor()
        return Report(
            complete=not self.spoiled,
            refusals=tuple(self._refusals[candidate] for candidate in sorted(self._refusals)),
            hashes={
                source: {name: _in_order(runs).hex() for name, runs in tensors.items()}
                for source, tensors in self._hashes.items()
            },
            squares=_summed(self._squares),
            alignment=_summed(self._alignment),
            largest={
                name: tuple(max(column) for column in zip(*_ordered(units), strict=True))
                for name, units in self._largest.items()
            },
            products=self._products,
            residuals=self._residuals,
        )

    def _add(self, name: str, products: Array) -> None:
        if self._tensor is not None and self._tensor[0] == name:
            np.add(self._tensor[1], products, out=self._tensor[1])
            return
        self._close_tensor()
        self._tensor = name, products

    def _close_tensor(self) -> None:
        if self._tensor is None:
            return
        name, products = self._tensor
        key = name if self._apart else ""
        known = self._products.get(key)
        self._products[key] = products if known is None else np.add(known, products, out=known)
        self._tensor = None


def _summed(tensors: dict[str, dict[int, Sequence[float]]]) -> dict[str, tuple[float, ...]]:
    return {
        name: tuple(float(sum(column)) for column in zip(*_ordered(units), strict=True))
        for name, units in tensors.items()
    }


def _ordered(units: dict[int, Sequence[float]]) -> list[Sequence[float]]:
    return [units[start] for start in sorted(units)]


def _in_order(runs: dict[int, bytes]) -> bytes:
    return b"".join(runs[start] for start in sorted(runs))
