"""A queue of keys: one look per key at a time, soon but not too often, and again on failure.

A key is woken by events, by the moment its last look asked for, and by a resync every few
minutes. However often it is woken, it is queued once. All of it is bounded by the number of keys.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from fedoperator import errors

Key = tuple[str, str]
"""Namespace and name of a training."""

PAUSE = 1.0
"""Seconds between the starts of two looks at one key, at least, if the first asks for no less."""

REST_LIMIT = 5.0
"""Seconds of rest after a long look: twice as long as it took, but no longer than this. A thousand
Jobs that start tell of it a thousand times, and each look lists them all."""

RESYNC = 300.0
"""Seconds after which a key is looked at although nothing happened; ±10 % to spread them."""

BACKOFF_LIMIT = 60.0
LOOK_LIMIT = 300.0
"""Seconds; every request of a look has its own, much shorter limit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What a look asks for.

    wake_at: look again then; pause: seconds from its start in which there is no other; gone: forget
    the key.
    """

    wake_at: datetime | None = None
    pause: float = PAUSE
    gone: bool = False


class Watcher(Protocol):
    """Who is told of every look; for metrics. seconds: that its key was due, or that it took."""

    def waited(self, seconds: float, again: bool) -> None: ...

    def looked(self, seconds: float, failed: str | None) -> None: ...


@dataclass(slots=True)
class _Item:
    """A key's place: waiting for `timer`, or ready since `ready_at`, or running."""

    started_at: float = float("-inf")
    soonest: float = float("-inf")
    """Before this no look begins."""
    timer: asyncio.TimerHandle | None = None
    ready_at: float | None = None
    running: bool = False
    again: bool = False
    at_once: bool = False
    """With `again`: as soon as this look is over."""
    failures: int = 0


class Queue:
    """Call everything from the event loop that runs it."""

    def __init__(
        self,
        look: Callable[[Key], Awaitable[Next]],
        *,
        watcher: Watcher | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._look = look
        self._watcher = watcher
        self._clock = clock
        self._jitter = jitter
        self._items: dict[Key, _Item] = {}
        self._ready: deque[Key] = deque()
        self._some_ready = asyncio.Event()
        self._running_since: float | None = None

    @property
    def keys(self) -> int:
        return len(self._items)

    @property
    def depth(self) -> int:
        """Keys that could be looked at right now."""
        return len(self._ready)

    def oldest(self) -> float:
        """Seconds for which the oldest key has been ready or under way; 0 before `run`."""
        if self._running_since is None:
            return 0.0
        since = [i.started_at for i in self._items.values() if i.running]
        since += [i.ready_at for i in self._items.values() if i.ready_at is not None]
        now = asyncio.get_running_loop().time()
        return max((now - max(s, self._running_since) for s in since), default=0.0)

    def wake(self, key: Key, *, at_once: bool = False) -> None:
        """Look at the key soon; a back-off that is under way is kept.

        at_once: without the pause between two looks, for whom others wait with warm processes.
        """
        item = self._items.setdefault(key, _Item())
        if item.running:
            item.again = True
            item.at_once |= at_once
        elif item.failures and item.timer is not None:
            return
        else:
            now = asyncio.get_running_loop().time()
            self._schedule(key, item, now if at_once else item.soonest)

    def forget(self, key: Key) -> None:
        """No more looks, unless the key is woken again."""
        item = self._items.get(key)
        if item is None or item.running:
            return
        if item.timer is not None:
            item.timer.cancel()
        if item.ready_at is not None:
            self._ready.remove(key)
        del self._items[key]

    async def run(self, workers: int) -> None:
        """Look, until cancelled."""
        self._running_since = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(), name=f"worker-{number}")

    async def _work(self) -> None:
        while True:
            while not self._ready:
                self._some_ready.clear()
                await self._some_ready.wait()
            key = self._ready.popleft()
            item = self._items[key]
            due_at = item.ready_at
            item.ready_at, item.running, item.again, item.at_once = None, True, False, False
            item.started_at = asyncio.get_running_loop().time()
            if self._watcher is not None and due_at is not None:
                since = max(due_at, self._running_since or due_at)
                self._watcher.waited(item.started_at - since, again=item.failures > 0)
            asked = await self._looked(key, item)
            item.running = False
            ended_at = asyncio.get_running_loop().time()
            rest = min(2 * (ended_at - item.started_at), REST_LIMIT)
            item.soonest = max(item.started_at + asked.pause, ended_at + rest)
            if asked.gone and not item.again:
                self.forget(key)
            else:
                self._schedule(key, item, self._next_time(item, asked))

    async def _looked(self, key: Key, item: _Item) -> Next:
        """One look. Whatever it raises, its own key is tried again, and the others go on.

        Nowhere else does work go on after an exception of any kind.
        """
        failed: str | None = None
        try:
            async with asyncio.timeout(LOOK_LIMIT):
                asked = await self._look(key)
            item.failures = 0
        except Exception as error:
            item.failures += 1
            failed = getattr(error, "reason", None) or type(error).__name__
            asked = Next()
            # What the cluster refuses is expected, and its sentence says it all.
            expected = isinstance(error, errors.ClusterError)
            log.log(
                logging.INFO if isinstance(error, errors.Conflict) else logging.ERROR,
                "look failed",
                exc_info=None if expected else error,
                extra={
                    "namespace": key[0],
                    "training": key[1],
                    "reason": failed,
                    "said": str(error),
                    "failures": item.failures,
                },
            )
        if self._watcher is not None:
            seconds = asyncio.get_running_loop().time() - item.started_at
            self._watcher.looked(seconds, failed)
        return asked

    def _next_time(self, item: _Item, asked: Next) -> float:
        """When to look again, on the loop's clock."""
        now = asyncio.get_running_loop().time()
        if item.failures:
            limit = min(BACKOFF_LIMIT, PAUSE * 2.0 ** min(item.failures - 1, 10))
            return max(now + limit * (0.5 + self._jitter() / 2), item.soonest)
        if item.again:
            return now if item.at_once else item.soonest
        wait = RESYNC * (0.9 + self._jitter() / 5)
        if asked.wake_at is not None:
            wait = min(wait, (asked.wake_at - self._clock()).total_seconds())
        return max(now + wait, item.soonest)

    def _schedule(self, key: Key, item: _Item, when: float) -> None:
        """Make the key ready then, if it is not to be ready earlier anyway."""
        if item.ready_at is not None:
            return
        loop = asyncio.get_running_loop()
        if item.timer is not None:
            if item.timer.when() <= when:
                return
            item.timer.cancel()
        if when <= loop.time():
            self._make_ready(key)
        else:
            item.timer = loop.call_at(when, self._make_ready, key)

    def _make_ready(self, key: Key) -> None:
        item = self._items[key]
        item.timer, item.ready_at = None, asyncio.get_running_loop().time()
        self._ready.append(key)
        self._some_ready.set()
