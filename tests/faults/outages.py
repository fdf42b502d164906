"""The API server is killed every half minute, and etcd once: trainings begin, go on and end all the
while, and each comes to the end that it would have come to."""

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
    for name in SCENARIOS:
        await faults.undisturbed(name)
    until = time.monotonic() + seconds
    names = itertools.cycle(SCENARIOS)
    killing = asyncio.create_task(_kill(faults, server, until))
    running: set[asyncio.Task[Outcome]] = set()
    try:
        while running or time.monotonic() < until:
            while len(running) < AT_ONCE and time.monotonic() < until:
                running.add(asyncio.create_task(faults.run(Point(scenario=next(names)))))
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield await task
        await killing
    finally:
        for task in (killing, *running):
            task.cancel()
        await asyncio.gather(killing, *running, return_exceptions=True)


async def _kill(faults: Bench, server: Server, until: float) -> None:
    """Until then, the last time well before."""
    began = time.monotonic()
    half, etcd_died = began + (until - began) / 2, False
    while time.monotonic() < until - EVERY:
        await asyncio.sleep(EVERY)
        both = time.monotonic() > half and not etcd_died
        names = ("kube-apiserver", "etcd") if both else ("kube-apiserver",)
        etcd_died |= both
        dead = [server.kill(name) for name in names]
        for program in reversed(dead):
            await asyncio.to_thread(server.start, program)
        faults.happened(f"{' and '.join(names)} killed, and back")
