"""`python -m fedoperator`: the operator on a cluster. The only place where things are made.

It watches from the start, so that a second replica is ready to take over; it looks at trainings
only while it holds the lease, and ends when it loses it.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from fedoperator.cluster import api, logs
from fedoperator.cluster.client import Kubernetes
from fedoperator.cluster.commit import Committer
from fedoperator.cluster.health import Health
from fedoperator.cluster.hubs import Hubs
from fedoperator.cluster.leader import Leader
from fedoperator.cluster.reconcile import Reconciler
from fedoperator.cluster.rights import Rights
from fedoperator.cluster.telemetry import Telemetry
from fedoperator.cluster.watch import Watch
from fedoperator.cluster.workqueue import Queue
from fedoperator.errors import ClusterError
from fedoperator.settings import Settings

INSTALLED_RETRY = 3.0
"""Seconds between looks for our resources, while they are not installed."""

log = logging.getLogger("fedoperator")


class Operator:
    """The parts of the process, put together."""

    def __init__(self, settings: Settings, transport: api.Api, watched: api.Configuration) -> None:
        self._settings = settings
        self._api = transport
        self._telemetry = telemetry = Telemetry()
        transport.told = telemetry.requested
        self._cluster = Kubernetes(transport)
        self._leader = leader = Leader(
            transport,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=settings.identity,
        )
        committer = Committer(
            self._cluster,
            lambda: leader.leads,
            telemetry,
            settings.controller_image,
            settings.lease_namespace,
        )
        hubs = Hubs(lambda key: self._queue.wake(key, at_once=True))
        reconciler = Reconciler(self._cluster, committer, telemetry, hubs)
        self._queue = queue = Queue(reconciler.look, watcher=telemetry)
        self._watch = Watch(watched, queue.wake, asyncio.get_running_loop(), settings.namespace)
        self._rights = Rights(
            transport,
            watched=settings.namespace,
            lease_namespace=settings.lease_namespace,
            lease_name=settings.lease_name,
        )
        self._health = Health(
            queue=queue,
            leader=leader,
            watch=self._watch,
            rights=self._rights,
            api=transport,
            telemetry=telemetry,
        )
        self._measure()

    def _measure(self) -> None:
        gauge, queue = self._telemetry.gauge, self._queue
        gauge("queue_keys", lambda: queue.keys)
        gauge("queue_depth", lambda: queue.depth)
        gauge("queue_oldest_seconds", queue.oldest)
        gauge("leader", self._leads)
        gauge("event_loop_lag_seconds", lambda: self._health.lag)
        gauge("watch_age_seconds", lambda: max(self._watch.ages().values(), default=0.0))

    def _leads(self) -> float:
        return float(self._leader.leads)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop. Raises LeaseLost, or what ended the watch."""
        server = web.AppRunner(self._health.application(), access_log=None, shutdown_timeout=0.1)
        await server.setup()
        await web.TCPSite(server, self._settings.host or None, self._settings.port).start()
        log.info("listening", extra={"port": self._settings.port})
        try:
            parts = (self._work(), self._see(), self._rights.keep(), self._health.tick())
            await _first_of(*parts, stop.wait())
        finally:
            # Nobody writes any more, so the next one may.
            await self._leader.release()
            await server.cleanup()

    async def _work(self) -> None:
        await self._leader.acquire()
        await _first_of(self._leader.keep(), self._queue.run(self._settings.workers))

    async def _see(self) -> None:
        """Watch, once our resources are there: kopf asks only once."""
        while (missing := await self._missing()) is not None:
            self._health.waits_for = missing
            log.warning("waiting", extra={"reason": missing})
            await asyncio.sleep(INSTALLED_RETRY)
        self._health.waits_for = ""
        await self._watch.run()

    async def _missing(self) -> str | None:
        try:
            there = await self._cluster.serves_trainings()
        except ClusterError as error:
            return str(error)
        return None if there else "the CustomResourceDefinitions of fedtrain.dev are missing"


async def _first_of(*parts: Coroutine[Any, Any, Any]) -> None:
    """Run all until one ends; the others are cancelled, and waited for. Raises what ended it."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def operate(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loaded = await api.configuration()
    transport = api.Api(loaded)
    try:
        await Operator(settings, transport, loaded).run(stop)
    finally:
        await transport.close()


def run(main: Coroutine[Any, Any, None]) -> int:
    """The exit code of the process: 0 when told to stop, 1 when something else ended it.

    Whatever that was is told as every other line of the log is, and ends the process.
    """
    try:
        asyncio.run(main)
    except Exception as error:
        log.error("ended", extra={"reason": type(error).__name__, "said": str(error)})
        return 1
    log.info("ended")
    return 0


def main() -> int:
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    return run(operate(settings))


if __name__ == "__main__":
    sys.exit(main())
