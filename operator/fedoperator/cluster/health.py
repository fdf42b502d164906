"""Whether this process is alive and ready, and why not: one sentence for each failing check.

Alive means that a restart would not help; ready that it does, or would at once do, its work.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

from fedoperator.cluster.api import Api
from fedoperator.cluster.leader import Leader
from fedoperator.cluster.rights import Rights
from fedoperator.cluster.telemetry import Telemetry
from fedoperator.cluster.watch import Watch
from fedoperator.cluster.workqueue import LOOK_LIMIT, Queue

TICK = 1.0
LAG_LIMIT = 5.0
"""Seconds that the event loop may be late: more, and lease and watches suffer."""

OLDEST_LIMIT = LOOK_LIMIT + 60.0
"""Seconds that a key may be due or under way; a look is ended before that."""

SILENCE_LIMIT = 30.0
"""Seconds without an answer of the API server; the lease asks it every 2 s."""

Check = Callable[[], Iterator[str]]


class Health:
    """Asked by the kubelet; knows everybody, and nobody knows it."""

    def __init__(
        self,
        *,
        queue: Queue,
        leader: Leader,
        watch: Watch,
        rights: Rights,
        api: Api,
        telemetry: Telemetry,
    ) -> None:
        self._queue = queue
        self._leader = leader
        self._watch = watch
        self._rights = rights
        self._api = api
        self._telemetry = telemetry
        self._ticked_at = time.monotonic()
        self._lag = 0.0
        self.waits_for = ""
        """What the start waits for, as a sentence; empty once it is over."""

    @property
    def lag(self) -> float:
        """Seconds by which the event loop is late: the worst of late, halved every ten ticks."""
        return max(self._lag, time.monotonic() - self._ticked_at - TICK)

    async def tick(self) -> None:
        """Measure the loop's lag, for ever."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self._lag = max(self._lag * 0.5**0.1, now - self._ticked_at - TICK)
            self._ticked_at = now

    def dead(self) -> Iterator[str]:
        """Why a restart would help."""
        if self.lag > LAG_LIMIT:
            yield f"the event loop is {self.lag:.1f} s late"
        if self._queue.oldest() > OLDEST_LIMIT:
            yield f"a training has waited {self._queue.oldest():.0f} s to be looked at"
        if not self._leader.leads and not self._leader.stands_by:
            yield "the lease is neither held nor tried for"
        stale = self._watch.stale()
        if stale is not None:
            yield stale

    def unready(self) -> Iterator[str]:
        """Why it would not work."""
        if self.waits_for:
            yield self.waits_for
        elif not self._watch.started:
            yield "the watches have not started yet"
        yield from self._rights.lacking()
        silence = time.monotonic() - self._api.answered_at
        if math.isinf(silence):
            yield "the API server has not answered yet"
        elif silence > SILENCE_LIMIT:
            yield f"the API server has not answered for {silence:.0f} s"

    def application(self) -> web.Application:
        async def metrics(_: web.Request) -> web.Response:
            # The text format's own content type has a parameter that aiohttp takes as a header.
            kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
            return web.Response(body=self._telemetry.render(), headers=kind)

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        app.router.add_get("/healthz", _answer(self.dead))
        app.router.add_get("/readyz", _answer(self.unready))
        return app


def _answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        wrong = list(check())
        text = "".join(f"{sentence}\n" for sentence in wrong) or "ok\n"
        return web.Response(text=text, status=503 if wrong else 200)

    return handle
