"""Job controller and kubelet of one namespace: every Job gets a pod, and comes to its outcome.

What they write is written as they would: to a Job that is still this one, again where the server
is away or somebody else wrote first, and nothing once the Job is gone.
"""

import asyncio
import pathlib
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fedoperator import errors
from fedoperator.cluster.api import Api
from fedoperator.rounds import observed
from fedtrain import contract
from fedtrain.contract import Message
from tests.cluster import playing
from tests.cluster.stage import NAME
from tests.faults.mirror import Name, Object, View, path
from tests.faults.nursery import Nursery, Process
from tests.faults.scenarios import Outcome, Scenario, result, states
from tests.faults.staying import DISRUPTED, FOREVER


class JobIsGone(Exception):
    """Nobody plays it any more."""


class Player:
    """address: of the hub, if pods stay; folder: holds the exchange."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        view: View,
        scenario: Scenario,
        nursery: Nursery,
        address: str,
        folder: pathlib.Path,
    ) -> None:
        self._api, self._namespace, self._view = api, namespace, view
        self._scenario, self._nursery = scenario, nursery
        self._address, self._folder = address, folder
        self._plays: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        view.listeners.append(self._heard)

    async def run(self) -> None:
        try:
            async with self._group:
                await asyncio.Event().wait()
        finally:
            self._view.listeners.remove(self._heard)

    def _heard(self, kind: str, name: Name, it: Object) -> None:
        uid = it["metadata"]["uid"]
        if name[0] != "jobs":
            return
        if kind == "DELETED" or "deletionTimestamp" in it["metadata"]:
            if uid in self._plays:
                self._plays.pop(uid).cancel()
        elif kind == "ADDED":
            self._plays[uid] = self._group.create_task(self._play(it, self._life()))

    def _life(self) -> int:
        return 1 + self._view.deleted["federatedtrainings", NAME]

    async def _play(self, job: Object, life: int) -> None:
        with suppress(JobIsGone):
            pod = await self._made_pod(job)
            if observed.stays(job):
                await self._play_staying(job, pod)
            else:
                await self._play_once(job, pod, life)

    async def _play_once(self, job: Object, pod: Object, life: int) -> None:
        task = playing.task(job)
        outcome = self._scenario.outcome(task, life)
        if outcome.seen or outcome.seconds is None:  # The others are over too soon to tell of it.
            await self._job(job, playing.job_ready())
        if outcome.seen:
            number, name = task["round"], task["participant"]
            await self._view.until(lambda v: states(v, number).get(name) == "Running")
        await asyncio.sleep(FOREVER if outcome.seconds is None else outcome.seconds)
        told = Message(result=result(task, outcome))
        if outcome.code:
            told = Message(reason=outcome.reason, message="as it was written")
        await self._ends(job, pod, outcome, told)

    async def _play_staying(self, job: Object, pod: Object) -> None:
        process = await self._process(job)
        try:
            if playing.task(job)["role"] == "prepare":
                await self._listens(process)
            await self._write("pods", pod, playing.running(pod, self._address))
            await self._job(job, playing.job_ready())
            code = await process.ended
        finally:
            process.kill()
        lost = code == DISRUPTED or code < 0
        outcome = Outcome(disrupted=lost, code=0 if lost else code, reason="Terminated")
        told = Message(reason="Terminated", message="stopped") if code else Message()
        await self._ends(job, pod, outcome, told)

    async def _ends(self, job: Object, pod: Object, outcome: Outcome, told: Message) -> None:
        name = job["metadata"]["name"]
        if not (outcome.silent or outcome.disrupted):
            await self._write("pods", pod, playing.ended(pod, outcome.code, told))
        if outcome.disrupted:
            await self._job(job, playing.job_disrupted(name))
        elif outcome.code:
            await self._job(job, playing.job_failed(name, outcome.code))
        else:
            await self._job(job, playing.job_succeeded())

    # Processes that stay -------------------------------------------------------------------------

    async def _process(self, job: Object) -> Process:
        task = playing.task(job)
        container = job["spec"]["template"]["spec"]["containers"][0]
        given = {e["name"]: e["value"].replace("$$", "$") for e in container["env"] if "value" in e}
        environment: Mapping[str, str] = {
            **given,
            contract.CARRIER_ENV: job["metadata"]["uid"],
            contract.HUB_ENV: f"{self._address}:{contract.HUB_PORT}",
            contract.ROOT_ENV: str(self._folder / task["uid"]),
        }
        role = "hub" if task["role"] == "prepare" else "participant"
        log = self._folder / f"{job['metadata']['name']}.log"
        return await self._nursery.start(role, environment, log, self._scenario.name)

    async def _listens(self, process: Process) -> None:
        """Until the hub does, or is over."""
        while not process.ended.done():
            try:
                _, writer = await asyncio.open_connection(self._address, contract.HUB_PORT)
            except OSError:
                await asyncio.sleep(0.03)
            else:
                writer.close()
                return

    # What is written -----------------------------------------------------------------------------

    async def _made_pod(self, job: Object) -> Object:
        document = playing.pod(job, uuid.uuid4().hex[:5])
        where = path("pods", self._namespace)
        while True:
            try:
                return await self._api.request("POST", where, document)
            except errors.Unavailable:
                await asyncio.sleep(0.3)
            except errors.AlreadyExists:  # No answer came the first time.
                return await self._read(f"{where}/{document['metadata']['name']}")

    async def _job(self, job: Object, status: Object) -> None:
        await self._write("jobs", job, playing.with_status(job, status)["status"])

    async def _write(self, plural: str, it: Object, status: Mapping[str, Any]) -> None:
        """The status of this very object. Raises JobIsGone."""
        where = path(plural, self._namespace, it["metadata"]["name"])
        now = self._view.get(plural, it["metadata"]["name"]) or it
        while True:
            if now["metadata"]["uid"] != it["metadata"]["uid"]:
                raise JobIsGone
            old = now.get("status") or {}
            started = {"startTime": old["startTime"]} if "startTime" in old else {}
            try:
                document = {**now, "status": {**old, **status, **started}}
                await self._api.request("PUT", f"{where}/status", document)
                return
            except errors.Unavailable:
                await asyncio.sleep(0.3)
            except errors.Conflict:
                now = await self._read(where)
            except errors.Gone:
                raise JobIsGone from None

    async def _read(self, where: str) -> Object:
        while True:
            try:
                return await self._api.request("GET", where)
            except errors.Unavailable:
                await asyncio.sleep(0.3)
            except errors.Gone:
                raise JobIsGone from None
