"""A pass: all units of what a process owns, by threads, each unit by one of them."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fedtrain.aggregation.record import Record
from fedtrain.aggregation.report import Report
from fedtrain.aggregation.units import Carried, Unit, units_of
from fedtrain.aggregation.updates import Bench, Update

Array = np.ndarray[Any, Any]


class Pass(ABC):
    """tensors: those that this process owns. updates: those that still stand, in order."""

    def __init__(
        self, tensors: Sequence[Carried], updates: Sequence[Update], record: Record
    ) -> None:
        self.tensors = tensors
        self.updates = updates
        self.record = record
        self._lock = threading.Lock()
        self._failed = threading.Event()

    @abstractmethod
    def work(self, number: int, unit: Unit, bench: Bench) -> None:
        """Read the unit, number `number` of the pass, to its end."""

    def run(self, threads: int) -> Report:
        """What was found. Raises FedtrainError and OSError, of ours or of the exchange's making."""
        units = enumerate(units_of(self.tensors))
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

    def _work(self, units: Iterator[tuple[int, Unit]]) -> None:
        bench = Bench()
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # found by looking at the values
                while not self._failed.is_set():
                    with self._lock:
                        number, unit = next(units, (-1, None))
                    if unit is None:
                        return
                    self.work(number, unit, bench)
        except BaseException:
            self._failed.set()
            raise
