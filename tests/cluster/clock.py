"""An event loop whose time passes only when everybody waits: hours in milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Sleepless(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Instead of sleeping, moves the loop's clock."""

    loop: "FastLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits for nothing"
        self.loop.now += max(timeout, 0.0)
        return super().select(0)


class FastLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 0.0
        selector = _Sleepless()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """`asyncio.run` on a loop of this kind."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(main)
