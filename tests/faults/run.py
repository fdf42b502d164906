"""One run: a namespace, a player, a proxy and an operator of its own, and the verdict."""

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedoperator import errors
from fedoperator.cluster.api import Api
from tests.cluster.stage import NAME
from tests.faults import verdict
from tests.faults.faults import Fault
from tests.faults.garbage import Collector
from tests.faults.mirror import Mirror, View, path
from tests.faults.nursery import Nursery, Process, start_plainly
from tests.faults.player import Player
from tests.faults.proxy import Proxy, Upstream
from tests.faults.scenarios import SCENARIOS, Scenario, User
from tests.faults.verdict import End

CONVERGES = float(os.environ.get("FEDTRAIN_FAULTS_SECONDS", "60"))
"""Seconds from the last thing that goes wrong, within which a training has come to its end. A
machine that others keep busy may need more."""

NOT_CONVERGED = f"not at its end after {CONVERGES:.0f} s"

QUIET = 2.5
"""Seconds without a write, after which there are no more: more than two pauses between looks."""

SETTLES = 20.0
"""Seconds after the end within which it has to become quiet."""

RIVALS = ("one", "other")
HAND_OVER = 4.0
"""Seconds between two hand-overs of the lease; a renewal takes half of it."""

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


class Run(User):
    """Of one point, in a namespace of that name; `slot` gives the hub an address of its own."""

    def __init__(self, around: Surroundings, point: Point, name: str, slot: int) -> None:
        self.point, self.namespace = point, name
        self.scenario: Scenario = SCENARIOS[point.scenario]
        self.view = View()
        self.outcome = Outcome(point=point)
        self._around, self._api = around, around.api
        self._address = f"127.77.{slot + 1}.1"
        self._folder = around.folder / name
        self._log = self._folder / "operator.log"
        self._began = time.monotonic()
        self._identity = 0
        self._operators: dict[str, Process] = {}
        self.proxy = Proxy(around.upstream, self._kill, point.faults)

    async def run(self) -> Outcome:
        self._folder.mkdir()
        try:
            async with self._namespace(), asyncio.TaskGroup() as group:
                parts = [
                    group.create_task(part)
                    for part in (
                        self._player().run(),
                        Collector(self._api, self.namespace, self.view).run(),
                        *self._operate_all(await self.proxy.open()),
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
        outcome.log = self._log.read_text() if self._log.exists() else ""
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
                since = self.proxy.disturbed_at
                if self.point.rivals:  # That never ends, so it is to go on all the time.
                    since = max(since, self.proxy.wrote_at)
                if loop.time() > since + CONVERGES:
                    self.outcome.wrong.append(NOT_CONVERGED)
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await self.view.until(lambda v: user.done() and self.scenario.done(v))
            else:
                self._says("it is at its end")
                await self._becomes_quiet()
        finally:
            user.cancel()
            await asyncio.gather(user, return_exceptions=True)
        self.outcome.end = verdict.end_of(self.view)
        self.outcome.wrong += verdict.violations(self.view)

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

    # The operator --------------------------------------------------------------------------------

    def _operate_all(self, server: str) -> Sequence[Coroutine[Any, Any, None]]:
        config = self._folder / "kubeconfig"
        config.write_text(json.dumps(_kubeconfig(server, self._around.token)))
        if not self.point.rivals:
            return [self._operate("operator")]
        return [*map(self._operate, RIVALS), self._hand_over()]

    async def _operate(self, name: str) -> None:
        """One after the other, as the kubelet would start it again."""
        try:
            while True:
                if not self.point.rivals:
                    self.proxy.restarted()
                operator = self._operators[name] = await self._started(name)
                self._says(f"{name} starts")
                code = await asyncio.shield(operator.ended)
                self._says(f"{name} ended with {code}")
                if code != -9:
                    # The kubelet starts it again; only what it was answered may have ended it.
                    if not self.proxy.misled and not self.point.rivals:
                        self.outcome.wrong.append(f"{name} ended by itself with {code}")
                    await asyncio.sleep(0.5)
        finally:
            for operator in self._operators.values():
                operator.kill()

    async def _started(self, name: str) -> Process:
        environment = {
            "KUBECONFIG": str(self._folder / "kubeconfig"),
            "FEDTRAIN_CONTROLLER_IMAGE": "ctl:1",
            "FEDTRAIN_HOST": "127.0.0.1",
            "FEDTRAIN_PORT": "0",
            "FEDTRAIN_NAMESPACE": self.namespace,
            "FEDTRAIN_LEASE_NAMESPACE": self.namespace,
            "FEDTRAIN_IDENTITY": f"{name}-{self._identity}",
        }
        if self.point.plainly:
            return await start_plainly(environment, self._log)
        return await self._around.nursery.start("operator", environment, self._log)

    def _kill(self, stranger: bool) -> None:
        self._identity += stranger
        for operator in self._operators.values():
            operator.kill()

    async def _hand_over(self) -> None:
        """The lease goes to the other one now and then; who had it learns that late."""
        leases = "/apis/coordination.k8s.io/v1/namespaces"
        where = f"{leases}/{self.namespace}/leases/fedtrain-operator"
        for heir in itertools.cycle(RIVALS):
            await asyncio.sleep(HAND_OVER)
            try:
                lease = await self._api.request("GET", where)
                lease["spec"]["holderIdentity"] = f"{heir}-0"
                await self._api.request("PUT", where, lease)
                self._says(f"the lease goes to {heir}")
                self.proxy.hit.append(f"the lease went to {heir}")
            except (errors.Conflict, errors.Gone, errors.Unavailable):
                continue

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


def _told(it: Any) -> str:
    """The word that says how far something is."""
    status = it.get("status") or {}
    said = [str(status.get(key, "")) for key in ("phase", "reason")]
    said += (
        [f"{p['name']}:{p['state']}:{p['attempt']}" for p in status.get("participants") or ()]
        if isinstance(status.get("participants"), list)
        else []
    )
    said += [c["type"] for c in status.get("conditions") or () if c.get("status") == "True"]
    return " ".join(filter(None, said))


def _binding() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": "default"}],
    }


def _kubeconfig(server: str, token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "proxy", "user": "operator"}}],
        "current-context": "it",
    }
