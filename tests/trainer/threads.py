"""Ranks without processes, for what must hold whatever carries their words."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any


class Threads:
    """Ranks that are threads of this process, for what must hold whatever carries the words."""

    def __init__(self, world: int) -> None:
        self.world, self.barrier = world, threading.Barrier(world, timeout=10)
        self.said: list[Any] = [None] * world

    def of(self, rank: int) -> Any:
        def gather(mine: Any) -> list[Any]:
            self.said[rank] = mine
            self.barrier.wait()
            told = list(self.said)
            self.barrier.wait()
            return told

        tell = lambda value: gather(value)[0]  # noqa: E731
        return SimpleNamespace(rank=rank, world=self.world, gather=gather, tell=tell)

    def run(self, act: Callable[[Any], Any]) -> list[Any]:
        """What `act(ranks)` gave or raised, on each rank."""

        def guarded(rank: int) -> Any:
            try:
                return act(self.of(rank))
            except Exception as error:
                return error

        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(guarded, range(self.world)))
