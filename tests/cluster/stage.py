"""A stage on a real API server: a namespace of its own, a training, and whoever plays the Jobs.

There is no Job controller and no kubelet behind that server; `Stage` plays both, writing only what
they would write, and the server validates it.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fedoperator import errors
from fedoperator.api import API_VERSION, GROUP, VERSION
from fedoperator.cluster.api import Api
from fedoperator.cluster.client import Kubernetes
from fedoperator.cluster.commit import Committer
from fedoperator.cluster.hubs import Hubs
from fedoperator.cluster.reconcile import Reconciler
from fedoperator.cluster.telemetry import Telemetry
from fedoperator.cluster.workqueue import Next
from fedoperator.rounds import observed
from fedtrain.contract import Message
from tests.cluster import playing

Object = dict[str, Any]
OURS = f"/apis/{GROUP}/{VERSION}"
NAME = "digits"


def a_training(participants: Sequence[str] = ("north", "south"), **changes: Any) -> Object:
    """A FederatedTraining as YAML would say it; keyword arguments replace top-level fields."""
    spec: Object = {
        "rounds": 2,
        "trainer": {"image": "digits:1", "command": ["torchrun", "train.py"]},
        "participants": [{"name": name} for name in participants],
        "exchange": {"size": "1Gi"},
        "quorum": {"minimum": len(participants)},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "FederatedTraining",
        "metadata": {"name": NAME},
        "spec": {**spec, **changes},
    }


class Died(BaseException):
    """The operator's process ended here. No error: nothing in the program may catch it."""


@dataclass
class Stage:
    """One namespace. The clock is the stage's own: `later` moves it."""

    api: Api
    namespace: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:10]}")
    late: timedelta = timedelta()
    leads: bool = True
    requests: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    """Of the operator, those that were refused, too."""
    dies_after: int | None = None
    """Writes after which the operator dies."""

    def __post_init__(self) -> None:
        self.telemetry = Telemetry()
        self.restart()

    def restart(self) -> None:
        """The operator as it is right after its start: it remembers nothing."""
        self.telemetry = Telemetry()
        cluster = Kubernetes(_Counted(self))  # type: ignore[arg-type]
        committer = Committer(
            cluster, lambda: self.leads, self.telemetry, "ctl:1", "fedtrain", self.clock
        )
        self.reconciler = Reconciler(
            cluster, committer, self.telemetry, Hubs(lambda key: None), self.clock
        )

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.late

    def later(self, **duration: float) -> None:
        self.late += timedelta(**duration)

    async def open(self) -> None:
        await self.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})

    # What the user does and sees ---------------------------------------------------------------

    async def apply(self, training: Object) -> Object:
        return await self.api.request("POST", self.path("federatedtrainings"), training)

    async def edit(self, **changes: Any) -> None:
        training = await self.training()
        training["spec"] |= changes
        await self.api.request("PUT", self.path("federatedtrainings", NAME), training)

    async def delete(self, plural: str, name: str) -> None:
        options = {"propagationPolicy": "Background"}
        await self.api.request("DELETE", self.path(plural, name), options)

    async def training(self) -> Object:
        return await self.api.request("GET", self.path("federatedtrainings", NAME))

    async def status(self) -> Object:
        status: Object = (await self.training()).get("status") or {}
        return status

    async def records(self) -> list[Object]:
        found = await self.api.request("GET", self.path("federatedrounds"))
        return sorted(found["items"], key=lambda r: r["metadata"]["name"])

    async def jobs(self) -> dict[str, Object]:
        found = await self.api.request("GET", self.path("jobs"))
        return {job["metadata"]["name"]: job for job in found["items"]}

    async def events(self) -> list[tuple[str, str]]:
        found = await self.api.request("GET", self.path("events"))
        return [(event["reason"], event["message"]) for event in found["items"]]

    def path(self, plural: str, *rest: str) -> str:
        groups = {"jobs": "/apis/batch/v1", "networkpolicies": "/apis/networking.k8s.io/v1"}
        groups["podgroups"] = "/apis/scheduling.k8s.io/v1beta1"
        prefix = groups.get(plural, "/api/v1")
        prefix = OURS if plural.startswith("federated") else prefix
        return "/".join([prefix, "namespaces", self.namespace, plural, *rest])

    # What the operator does --------------------------------------------------------------------

    async def look(self) -> Next:
        return await self.reconciler.look((self.namespace, NAME))

    async def settle(self) -> None:
        """Look until a look writes nothing; a conflict is looked at again, as the queue does."""
        for _ in range(20):
            before = self.writes
            try:
                await self.look()
            except errors.Conflict:
                continue
            if self.writes == before:
                return
        raise AssertionError("the operator never comes to rest")

    @property
    def writes(self) -> int:
        return sum(count for verb, count in self.requests.items() if not verb.startswith("GET"))

    # What Job controller and kubelet do --------------------------------------------------------

    async def ready(self, name: str) -> None:
        await self._job_status(name, playing.job_ready())

    async def unready(self, name: str) -> None:
        await self._job_status(name, {"active": 0, "ready": 0, "terminating": 1})

    async def succeed(self, name: str, result: Object | None = None) -> None:
        """With the termination message of its pod, unless it got lost (result None)."""
        if result is not None:
            await self._pod(name, 0, Message(result=result))
        await self._job_status(name, playing.job_succeeded())

    async def fail(self, name: str, code: int, reason: str, message: str) -> None:
        await self._pod(name, code, Message(reason=reason, message=message))
        await self._job_status(name, playing.job_failed(name, code))

    async def gives_up(self, name: str, reason: str, message: str) -> None:
        """As the Job controller says it when it has seen why a pod failed."""
        await self._job_status(name, playing.job_failing(reason, message))

    async def work_off(self) -> list[str]:
        """Everything unfinished succeeds with a plausible result; returns the names."""
        done = []
        for name, job in (await self.jobs()).items():
            if job.get("status", {}).get("conditions") or "deletionTimestamp" in job["metadata"]:
                continue
            await self.succeed(name, self.plausible(job))
            done.append(name)
        return done

    def plausible(self, job: Object) -> Object:
        meta = job["metadata"]
        candidates = playing.task(job).get("candidates") or []
        return playing.plausible(meta["labels"][observed.ROLE_LABEL], meta["name"], len(candidates))

    async def _pod(self, name: str, code: int, message: Message) -> None:
        made = await self._made(name)
        await self._told(made, playing.ended(made, code, message))

    async def pod(
        self, name: str, phase: str, state: Object | None, node: str = "", **status: str
    ) -> str:
        """A pod of the Job as its kubelet tells of it; state None: it never had a container."""
        made = await self._made(name, node)
        await self._told(made, playing.told(made, phase, state) | status)
        return str(made["metadata"]["name"])

    async def _made(self, name: str, node: str = "") -> Object:
        pod = playing.pod((await self.jobs())[name], uuid.uuid4().hex[:5])
        pod["spec"] = {**pod["spec"], "nodeName": node} if node else pod["spec"]
        return await self.api.request("POST", self.path("pods"), pod)

    async def _told(self, pod: Object, status: Object) -> None:
        path = self.path("pods", pod["metadata"]["name"], "status")
        await self.api.request("PUT", path, {**pod, "status": status})

    async def _job_status(self, name: str, status: Object) -> None:
        job = playing.with_status((await self.jobs())[name], status)
        await self.api.request("PUT", self.path("jobs", name, "status"), job)


@dataclass
class _Counted:
    """The operator's session: counts what it did, and may end in the middle of it."""

    stage: Stage

    async def request(self, method: str, path: str, *rest: Any, **more: Any) -> Object:
        stage = self.stage
        if method != "GET" and stage.dies_after is not None and stage.writes >= stage.dies_after:
            raise Died
        stage.tried[f"{method} {path}"] += 1
        answer = await stage.api.request(method, path, *rest, **more)
        stage.requests[f"{method} {path}"] += 1
        return answer
