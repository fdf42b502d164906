"""One run: a namespace, a player, a proxy and an operator of its own, and the verdict."""

import asyncio
import contextlib
import os
import pathlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fedoperator import errors
from fedoperator.cluster.api import Api
from fedoperator.cluster.workqueue import RESYNC
from tests.cluster.stage import NAME
from tests.faults import verdict
from tests.faults.faults import Fault
from tests.faults.garbage import Collector
from tests.faults.mirror import Mirror, View, path
from tests.faults.nursery import Nursery
from tests.faults.operators import Operators
from tests.faults.player import Player
from tests.faults.proxy import Proxy, Upstream
from tests.faults.scenarios import SCENARIOS, Scenario, User
from tests.faults.verdict import End

STUCK = float(os.environ.get("FEDTRAIN_FAULTS_SECONDS", "60"))
"""Seconds in which an operator writes, or its training is at its end, or the run has failed. What
is promised is that it is at its end by then; but how long that takes is also a question of how much
processor others leave, so it is measured, and told."""

ENDLESS = 10 * STUCK
"""Seconds after the last thing that goes wrong in which a training is at its end in any case."""

NOT_CONVERGED = "not at its end, and it"

QUIET = 2.5
"""Seconds without a write, after which there are no more: more than two pauses between looks."""

SETTLES = 20.0
"""Seconds after the end within which it has to become quiet."""

CLEANED = (
    "federatedtrainings",
    "federatedrounds",
    "jobs",
    "pods",
    "services",
    "persistentvolumeclaims",
    "events",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all runs of a bench share."""

    api: Api
    mirror: Mirror
    upstream: Upstream
    nursery: Nursery
    token: str
    folder: pathlib.Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run to be: what goes wrong in which scenario. replay: the words that run it again."""

    scenario: str
    faults: tuple[Fault, ...] = ()
    replay: str = ""
    plainly: bool = False
    """Whether the operator is started without the zygote."""
    rivals: bool = False
    """Whether there are two, who get the lease in turn, whatever they are about."""

    old_lists: int = 0
    """So many lists are old ones from when the training is applied again."""

    def __str__(self) -> str:
        wrong = "; ".join(map(str, self.faults)) or "undisturbed"
        return f"{self.scenario}: {wrong}"


@dataclass(kw_only=True)
class Outcome:
    """What a run came to. wrong: sentences, none if all went well."""

    point: Point
    end: End | None = None
    wrong: list[str] = field(default_factory=list)
    hit: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    verbs: set[tuple[str, str, str]] = field(default_factory=set)
    story: list[str] = field(default_factory=list)
    log: str = ""
    seconds: float = 0.0
    converged: float = 0.0
    """Seconds from the last thing that went wrong to the end."""

    @property
    def stuck(self) -> bool:
        return any(sentence.startswith(NOT_CONVERGED) for sentence in self.wrong)


class Run(User):
    """Of one point, in a namespace of that name; `slot` gives the hub an address of its own."""

    def __init__(self, around: Surroundings, point: Point, name: str, slot: int) -> None:
        self.point, self.namespace = point, name
        self.scenario: Scenario = SCENARIOS[point.scenario]
        self.view = View()
        self.outcome = Outcome(point=point)
        self._around, self._api = around, around.api
        self._address = _own_address(slot)
        self._folder = around.folder / name
        self._began = time.monotonic()
        self._operators = Operators(
            nursery=around.nursery,
            namespace=name,
            token=around.token,
            folder=self._folder,
            plainly=point.plainly,
            rivals=point.rivals,
            says=self._says,
            wrong=self.outcome.wrong,
        )
        self.proxy = Proxy(around.upstream, self._operators.kill, point.faults)

    async def run(self) -> Outcome:
        self._folder.mkdir()
        try:
            async with self._namespace(), asyncio.TaskGroup() as group:
                parts = [
                    group.create_task(part)
                    for part in (
                        self._player().run(),
                        Collector(self._api, self.namespace, self.view).run(),
                        *self._operators.parts(self._api, self.proxy, await self.proxy.open()),
                    )
                ]
                try:
                    await self._play()
                finally:
                    for part in parts:
                        part.cancel()
        finally:
            await self.proxy.close()
        outcome, proxy = self.outcome, self.proxy
        outcome.hit, outcome.written, outcome.verbs = proxy.hit, proxy.written, proxy.verbs
        outcome.log = self._operators.log
        outcome.seconds = time.monotonic() - self._began
        lines = [line for line in outcome.log.splitlines() if "traceback=" in line]
        if any("logger=fedoperator" in line for line in lines):  # kopf tells of all answers so.
            outcome.wrong.append("the operator's log has a traceback")
        return outcome

    def _player(self) -> Player:
        around = self._around
        return Player(
            self._api,
            self.namespace,
            self.view,
            self.scenario,
            around.nursery,
            self._address,
            self._folder,
        )

    def _says(self, what: str) -> None:
        self.outcome.story.append(f"{time.monotonic() - self._began:7.2f} {what}")

    def happened(self, what: str) -> None:
        """Something went wrong outside: the time for what follows begins anew."""
        self._says(what)
        self.proxy.hit.append(what)
        self.proxy.hit_at = asyncio.get_running_loop().time()

    # What the user does --------------------------------------------------------------------------

    async def _play(self) -> None:
        """To the end, and then until it is quiet; the verdict is in the outcome."""
        self.view.listeners.append(
            lambda kind, name, it: self._says(f"{kind.lower()} {' '.join(name)} {_told(it)}")
        )
        await self.apply()
        user = asyncio.create_task(self.scenario.user(self))
        try:
            while not (user.done() and self.scenario.done(self.view)):
                loop = asyncio.get_running_loop()
                stuck = self._stuck(loop.time())
                if stuck is not None:
                    self.outcome.wrong.append(f"{NOT_CONVERGED} {stuck}")
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await self.view.until(lambda v: user.done() and self.scenario.done(v))
            else:
                self._says("it is at its end")
                now = asyncio.get_running_loop().time()
                self.outcome.converged = now - self.proxy.hit_at
                await self._becomes_quiet()
                user.result()  # Raises what went wrong with the scenario itself.
        finally:
            user.cancel()
            await asyncio.gather(user, return_exceptions=True)
        self.outcome.end = verdict.end_of(self.view)
        self.outcome.wrong += verdict.violations(self.view)

    def _stuck(self, now: float) -> str | None:
        patience = STUCK
        if any(fault.kind == "stale" for fault in self.point.faults):
            patience += 1.1 * RESYNC  # What an old list hides, no event tells again.
        if now - max(self.proxy.wrote_at, self.proxy.hit_at) > patience:
            return f"has not written for {patience:.0f} s"
        if now - self.proxy.hit_at > ENDLESS:
            return f"has written for {ENDLESS:.0f} s"
        return None

    async def _becomes_quiet(self) -> None:
        loop, proxy = asyncio.get_running_loop(), self.proxy
        limit = loop.time() + SETTLES
        while loop.time() < limit:
            since = max(proxy.wrote_at, proxy.hit_at, proxy.led_at, proxy.listed_at)
            if loop.time() - since > QUIET:
                return
            await asyncio.sleep(0.1)
        self.outcome.wrong.append(f"it still writes {SETTLES:.0f} s after its end")

    async def apply(self) -> None:
        if self.view.created["federatedtrainings", NAME]:
            self.proxy.old_lists = self.point.old_lists
        where = path("federatedtrainings", self.namespace)
        await self._insists("POST", where, self.scenario.training)

    async def edit(self, **changes: Any) -> None:
        where = path("federatedtrainings", self.namespace, NAME)
        self._says(f"the user edits {', '.join(changes)}")
        while True:
            training = await self._insists("GET", where)
            training["spec"] |= changes
            try:
                await self._insists("PUT", where, training)
                return
            except errors.Conflict:
                continue

    async def delete(self) -> None:
        self._says("the user deletes the training")
        where = path("federatedtrainings", self.namespace, NAME)
        await self._insists("DELETE", where, {"propagationPolicy": "Background"})

    async def _insists(self, method: str, where: str, body: Any = None) -> Any:
        """Again while the server is away; what was done although no answer came is done."""
        again = False
        while True:
            try:
                return await self._api.request(method, where, body)
            except errors.Unavailable:
                again = True
                await asyncio.sleep(0.3)
            except (errors.AlreadyExists, errors.Gone):
                if not again:
                    raise
                return {}

    # Its place ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _namespace(self) -> AsyncIterator[None]:
        document = {"metadata": {"name": self.namespace}}
        await self._insists("POST", "/api/v1/namespaces", document)
        bound = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}/rolebindings"
        await self._insists("POST", bound, _binding())
        self._around.mirror.views[self.namespace] = self.view
        try:
            yield
        finally:
            del self._around.mirror.views[self.namespace]
            for plural in CLEANED:
                await self._insists("DELETE", path(plural, self.namespace))


def _own_address(slot: int) -> str:
    """On the loopback, where the hub has a fixed port; another bench has other addresses."""
    return f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}.{slot + 1}"


def _told(it: Any) -> str:
    """The words that say how far something is."""
    status = it.get("status") or {}
    said = [str(status.get(key, "")) for key in ("phase", "reason")]
    participants = status.get("participants")
    if isinstance(participants, list):
        said += [f"{p['name']}:{p['state']}:{p['attempt']}" for p in participants]
    said += [c["type"] for c in status.get("conditions") or () if c.get("status") == "True"]
    return " ".join(filter(None, said))


def _binding() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": "default"}],
    }
