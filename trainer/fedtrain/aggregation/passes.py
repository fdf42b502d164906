"""A pass: all units of what a process owns, by threads, each unit by one of them.

A unit is a run of a tensor; a pass over pairs of factors has whole pairs in their place.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np

from fedtrain.aggregation.record import Record
from fedtrain.aggregation.report import Report
from fedtrain.aggregation.units import Carried, Unit, units_of
from fedtrain.aggregation.updates import Bench, Update

Array = np.ndarray[Any, Any]
J = TypeVar("J")


class Pass(ABC, Generic[J]):
    """updates: those that still stand, in order."""

    def __init__(self, updates: Sequence[Update], record: Record) -> None:
        self.updates = updates
        self.record = record
        self._lock = threading.Lock()
        self._failed = threading.Event()

    @abstractmethod
    def units(self) -> Iterator[J]:
        """What there is to do, each independent of the others."""

    @abstractmethod
    def work(self, number: int, unit: J, bench: Bench) -> None:
        """Read the unit, number `number` of the pass, to its end."""

    def run(self, threads: int) -> Report:
        """What was found. Raises FedtrainError and OSError, of ours or of the exchange's making."""
        units = enumerate(self.units())
        with ThreadPoolExecutor(max(1, threads), "pass") as pool:
            workers = [pool.submit(self._work, units) for _ in range(max(1, threads))]
            try:
                for worker in workers:
                    worker.result()
            finally:
                self._failed.set()
        return self.record.report()

    @property
    def interrupted(self) -> bool:
        """Another thread failed: whatever this one does is for nothing."""
        return self._failed.is_set()

    def _work(self, units: Iterator[tuple[int, J]]) -> None:
        bench = Bench()
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # found by looking at the values
                while not self._failed.is_set():
                    with self._lock:
                        following = next(units, None)
                    if following is None:
                        return
                    self.work(*following, bench)
        except BaseException:
            self._failed.set()
            raise


class UnitPass(Pass[Unit]):
    """tensors: those that this process owns."""

    def __init__(
        self, tensors: Sequence[Carried], updates: Sequence[Update], record: Record
    ) -> None:
        super().__init__(updates, record)
        self.tensors = tensors

    def units(self) -> Iterator[Unit]:
        return units_of(self.tensors)
