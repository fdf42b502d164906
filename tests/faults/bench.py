"""The bench: one API server, one zygote, and many runs at once."""

import asyncio
import contextlib
import hashlib
import math
import os
import pathlib
import ssl
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from kubernetes.aio import client as kubernetes

from fedoperator import errors
from fedoperator.cluster import api
from tests.cluster import rbac
from tests.faults.faults import POSITIONS, Fault, a_mix, two_crashes
from tests.faults.mirror import Mirror, path
from tests.faults.nursery import Nursery
from tests.faults.proxy import Upstream
from tests.faults.run import Outcome, Point, Run, Surroundings
from tests.faults.verdict import differences

AT_ONCE = int(os.environ.get("FEDTRAIN_FAULTS_AT_ONCE", 4 * (os.cpu_count() or 2)))
"""Runs: most of each is waiting; each wants a fifth of a core."""


class Bench:
    """Runs points, and compares each with the undisturbed run of its scenario."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._slots: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(AT_ONCE):
            self._slots.put_nowait(slot)
        self._undisturbed: dict[str, asyncio.Task[Outcome]] = {}
        self._running: set[Run] = set()
        self.verbs: set[tuple[str, str, str]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, kubeconfig: pathlib.Path, folder: pathlib.Path, planted: str = ""
    ) -> AsyncIterator["Bench"]:
        """For an API server that knows our resources. planted: what operators do before all else;
        to see that the bench finds it."""
        loaded = await api.configuration(kubeconfig)
        admin = api.Api(loaded)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(admin.close)
            mirror = Mirror(admin)
            upstream = Upstream(loaded.host, _anybodys(loaded))
            stack.push_async_callback(upstream.session.close)
            nursery = await stack.enter_async_context(Nursery.open(planted))
            around = Surroundings(
                api=admin,
                mirror=mirror,
                upstream=upstream,
                nursery=nursery,
                token=await _account(admin),
                folder=folder,
            )
            watching = asyncio.create_task(mirror.run())
            try:
                yield cls(around)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def run(self, point: Point) -> Outcome:
        """One point, compared with the undisturbed run."""
        undisturbed = await self.undisturbed(point.scenario)
        outcome = await self._run(point)
        ended = not (undisturbed.stuck or outcome.stuck)
        if ended and undisturbed.end is not None and outcome.end is not None:
            outcome.wrong += [
                sentence
                for sentence in differences(undisturbed.end, outcome.end)
                if not (_sees_old_lists(point) and sentence.startswith("deleted.jobs "))
            ]
        return outcome

    async def undisturbed(self, scenario: str) -> Outcome:
        if scenario not in self._undisturbed:
            running = self._run(Point(scenario=scenario, replay=f"--scenario {scenario}"))
            self._undisturbed[scenario] = asyncio.create_task(running)
        return await self._undisturbed[scenario]

    async def _run(self, point: Point) -> Outcome:
        slot = await self._slots.get()
        try:
            run = Run(self._around, point, f"f-{uuid.uuid4().hex[:10]}", slot)
            self._running.add(run)
            try:
                outcome = await run.run()
            finally:
                self._running.discard(run)
        finally:
            self._slots.put_nowait(slot)
        self.verbs |= outcome.verbs
        return outcome

    def happened(self, what: str) -> None:
        """To all runs that are under way."""
        for run in self._running:
            run.happened(what)

    async def all(self, points: Sequence[Point]) -> AsyncIterator[Outcome]:
        """Their outcomes as they come."""
        tasks = [asyncio.create_task(self.run(point)) for point in points]
        try:
            for ended in asyncio.as_completed(tasks):
                yield await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


# Which points there are ------------------------------------------------------------------------


def crash_points(scenario: str, writes: int) -> list[Point]:
    return [crash_point(scenario, n, p) for n in range(1, writes + 1) for p in POSITIONS]


def crash_point(scenario: str, write: int, position: str) -> Point:
    fault = Fault(kind="kill", at=write, position=position)
    replay = f"--scenario {scenario} --write {write} --position {position}"
    return Point(scenario=scenario, faults=(fault,), replay=replay)


def double_crash(scenario: str, seed: str, writes: int) -> Point:
    replay = f"--scenario {scenario} --crashes {seed}"
    return Point(scenario=scenario, faults=two_crashes(seed, writes), replay=replay)


def mix(scenario: str, seed: str, writes: int) -> Point:
    replay = f"--scenario {scenario} --mix {seed}"
    return Point(scenario=scenario, faults=a_mix(seed, writes), replay=replay)


def a_part(points: Sequence[Point], of: int) -> list[Point]:
    """One of so many, spread over all, the same ones always."""
    order = sorted(points, key=lambda p: hashlib.sha256(p.replay.encode()).digest())
    return order[: math.ceil(len(points) / of)]


def processor_seconds() -> float:
    """Of this process and of all that descend from it."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = sum(map(int, fields[11:15])) / ticks

    def descends(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return sum(seconds for pid, seconds in used.items() if descends(pid))


def _anybodys(loaded: kubernetes.Configuration) -> ssl.SSLContext:
    """To reach the server without the admin's certificate."""
    return ssl.create_default_context(cafile=loaded.ssl_ca_cert)


def _sees_old_lists(point: Point) -> bool:
    """What is long over is taken for running then, and for superfluous: that costs it its log."""
    return any(fault.kind == "stale" for fault in point.faults)


def followed_by_a_stranger(point: Point) -> Point:
    """The same kills, and successors of another name, who wait until the lease has run out."""
    return replace(point, faults=tuple(replace(f, stranger=True) for f in point.faults))


async def _account(admin: api.Api) -> str:
    """The token of an account that may do what the operator does, where it is bound."""
    role = {"metadata": {"name": "operator"}, "rules": rbac.rules(rbac.NAMESPACED + rbac.LEASES)}
    accounts = path("serviceaccounts", "default")
    for where, document in (
        (accounts, {"metadata": {"name": "operator"}}),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", role),
    ):
        with contextlib.suppress(errors.AlreadyExists):  # Of a bench before, at this server.
            await admin.request("POST", where, document)
    made = await admin.request(
        "POST", f"{accounts}/operator/token", {"spec": {"expirationSeconds": 86400}}
    )
    token: str = made["status"]["token"]
    return token
