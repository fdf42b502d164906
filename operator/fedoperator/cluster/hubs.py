"""The lines to the hubs of trainings whose pods stay: one for each hub that runs."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from fedoperator import errors
from fedoperator.api.training import Training
from fedoperator.cluster.workqueue import Key
from fedoperator.link import Link
from fedoperator.rounds import observed
from fedoperator.rounds.observed import Report
from fedoperator.rounds.plan import Plan
from fedtrain import contract
from fedtrain.contract import Role

PATIENCE = 5.0
"""Seconds from the beginning of its line for a hub whose pod is ready to tell what it knows."""

Object = dict[str, Any]
Pods = Callable[[str], Awaitable[Sequence[Object]]]
"""The uid of a Job → its pods."""

log = logging.getLogger(__name__)


class Hubs:
    """wake: called in the event loop when a hub has news of a training."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._wake = wake
        self._links: dict[Key, tuple[str, Link]] = {}

    async def heard(
        self, key: Key, training: Training, jobs: Sequence[Object], pods: Pods
    ) -> tuple[tuple[Report, ...], datetime | None]:
        """What the hub has told, and since when it has told everything.

        Raises HubUnreachable: without the hub's word a look would take what is over for late.
        """
        if training.spec.pods != "Resident":
            return (), None
        job = _hub_of(jobs)
        if job is None and training.status.terminal:
            self.forget(key)
        if job is None:
            old = self._links.get(key)
            return (old[1].reports() if old is not None else ()), None
        uid = job["metadata"]["uid"]
        if key not in self._links or self._links[key][0] != uid:
            await self._connect(key, job, await pods(uid))
        link = self._links[key][1]
        # Once for each line: many hubs that say nothing would take the looks of all others.
        patience = link.begun_at + PATIENCE - time.monotonic()
        known = link.wait(0) or (patience > 0 and await asyncio.to_thread(link.wait, patience))
        if not known or link.is_lost():
            if training.status.terminal:  # nothing is asked of anybody any more
                return link.reports(), None
            sentence = link.problem or f"the hub at {link.address[0]} says nothing"
            remedy = f"allow the operator's pods to reach its port {contract.HUB_PORT}"
            raise errors.HubUnreachable(f"{sentence}; {remedy}")
        return link.reports(), link.heard_since

    def tell(self, key: Key, plan: Plan) -> None:
        if key in self._links:
            self._links[key][1].tell(plan)

    def forget(self, key: Key) -> None:
        _, link = self._links.pop(key, (None, None))
        if link is not None:
            link.close()

    async def _connect(self, key: Key, job: Object, pods: Sequence[Object]) -> None:
        addresses = [ip for pod in pods if (ip := (pod.get("status") or {}).get("podIP"))]
        if not addresses:
            raise errors.HubUnreachable("the hub's pod has no address yet")
        self.forget(key)
        loop = asyncio.get_running_loop()

        def news() -> None:
            loop.call_soon_threadsafe(self._wake, key)

        link = Link((addresses[0], contract.HUB_PORT), _token(job), news)
        self._links[key] = (job["metadata"]["uid"], link)


def _hub_of(jobs: Sequence[Object]) -> Object | None:
    """The Job whose pod is the hub and runs; of several the last."""
    found = [job for job in jobs if _is_hub(job)]
    return max(found, key=lambda job: str(job["metadata"]["creationTimestamp"]), default=None)


def _is_hub(job: Mapping[str, Any]) -> bool:
    meta, status = job["metadata"], job.get("status") or {}
    labels = meta.get("labels") or {}
    return (
        labels.get(observed.RESIDENT_LABEL) == "true"
        and labels.get(observed.ROLE_LABEL) == str(Role.PREPARE)
        and "deletionTimestamp" not in meta
        and (status.get("ready") or 0) > 0
    )


def _token(job: Mapping[str, Any]) -> str:
    """What the operator gave the hub when it made it."""
    for container in job["spec"]["template"]["spec"]["containers"]:
        for variable in container.get("env") or []:
            if variable["name"] == contract.HUB_TOKEN_ENV:
                return str(variable.get("value") or "")
    return ""
