"""Trainings begin, go on and end all the while that things go wrong outside, one after the other.

Outages: the API server is killed every half minute, and etcd once. Rivals: two operators have each
training's lease in turn. Every training comes to the end that it would have come to.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

from devcluster.apiserver import Server
from tests.faults.bench import AT_ONCE, Bench
from tests.faults.run import Outcome, Point
from tests.faults.scenarios import SCENARIOS

EVERY = 30.0
"""Seconds between two deaths of the API server."""


async def outages(faults: Bench, server: Server, seconds: float) -> AsyncIterator[Outcome]:
    """The outcomes of all trainings that began within that time."""
    await asyncio.gather(*map(faults.undisturbed, SCENARIOS))
    until = time.monotonic() + seconds
    killing = asyncio.create_task(_kill(faults, server, until))
    try:
        async for outcome in _meanwhile(faults, until, rivals=False):
            yield outcome
        await killing
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)


async def rivals(faults: Bench, seconds: float) -> AsyncIterator[Outcome]:
    """The same."""
    await asyncio.gather(*map(faults.undisturbed, SCENARIOS))
    async for outcome in _meanwhile(faults, time.monotonic() + seconds, rivals=True):
        yield outcome


async def _meanwhile(faults: Bench, until: float, rivals: bool) -> AsyncIterator[Outcome]:
    running: set[asyncio.Task[Outcome]] = set()
    names = itertools.cycle(SCENARIOS)
    try:
        while running or time.monotonic() < until:
            while len(running) < AT_ONCE and time.monotonic() < until:
                point = Point(scenario=next(names), rivals=rivals)
                running.add(asyncio.create_task(faults.run(point)))
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield await task
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _kill(faults: Bench, server: Server, until: float) -> None:
    """Until then, the last time well before."""
    began = time.monotonic()
    half, etcd_died = began + (until - began) / 2, False
    while time.monotonic() < until - EVERY:
        await asyncio.sleep(EVERY)
        both = time.monotonic() > half and not etcd_died
        names = ("kube-apiserver", "etcd") if both else ("kube-apiserver",)
        etcd_died |= both
        dead = [server.processes.kill(name) for name in names]
        for program in reversed(dead):
            await asyncio.to_thread(server.processes.start, program)
        faults.happened(f"{' and '.join(names)} killed, and back")
