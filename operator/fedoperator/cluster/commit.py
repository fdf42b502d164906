"""Carries a plan out, in one order always: records, status, creations, deletions, then events.

What was learned is written before anything is acted on, so that a crash anywhere counts nothing
twice; and events tell only of what was written.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from fedoperator import errors
from fedoperator.api import API_VERSION
from fedoperator.api import round as round_api
from fedoperator.api import training as training_api
from fedoperator.api.round import Record, record_name
from fedoperator.api.status import TrainingStatus
from fedoperator.api.training import Training
from fedoperator.cluster.api import Object
from fedoperator.cluster.client import Cluster, is_owned
from fedoperator.cluster.telemetry import Telemetry
from fedoperator.cluster.troubles import Troubles
from fedoperator.rounds import jobs
from fedoperator.rounds.observed import Trouble
from fedoperator.rounds.plan import Event, Plan
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import Role

AT_ONCE = 8
"""Requests of one commit that are under way together."""

FAILURES = 10
"""Refused creations after which a look gives up: a full quota refuses a thousand alike."""

EVENTS = 25
"""Events of one commit; a thousand participants that fail alike need no thousand events."""

log = logging.getLogger(__name__)


class Committer:
    """Writes; nobody else does."""

    def __init__(
        self,
        cluster: Cluster,
        leads: Callable[[], bool],
        telemetry: Telemetry,
        controller_image: str,
        operator_namespace: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._leads = leads
        self._telemetry = telemetry
        self._image = controller_image
        self._namespace = operator_namespace
        self._clock = clock
        self._forgotten: dict[str, int] = {}
        """uid of a training → the round before which its records are known to be gone."""

    async def commit(
        self,
        read: Object,
        training: Training,
        records: Sequence[Record],
        plan: Plan,
        troubles: Troubles,
    ) -> bool:
        """Whether there is more to see now: something was made, deleted, or refused anew.

        What was only learned leaves nothing to a next look, and the watch is silent about it.

        Raises Conflict as soon as the cluster is not what the plan was made from, and NameTaken
        if a record's name is; a workload that cannot be made goes into `troubles` instead.
        """
        wrote = await self._write_records(training, records, plan)
        written = await self.write_status(read, plan.status)
        troubles.keep([workload.name for workload in plan.create])
        now = self._clock()
        wanted = [w for w in plan.create if troubles.may_try(w.name, now)]
        before = plan.forget_before
        forgets = before is not None and self._forgotten.get(training.uid, 0) < before
        acts = bool(wanted or plan.delete) or forgets
        if acts and written is None:
            await self._still(read)
        acted = await self._create(training, wanted, troubles)
        acted |= await self._delete(training, plan)
        if before is not None and forgets:
            await self._forget(training, before)
            self._forgotten[training.uid] = before
        if wrote or written is not None:
            await self.tell(training, plan.events)
        return acted

    def forget(self, uid: str) -> None:
        """That training is gone."""
        self._forgotten.pop(uid, None)

    async def write_status(self, read: Object, status: TrainingStatus) -> Object | None:
        """The training as written; None if nothing had to be."""
        old, new = read.get("status"), status.to_dict()
        if old is not None and TrainingStatus.model_validate(old).to_dict() == new:
            return None
        self._must_lead()
        written = await self._cluster.put_training_status(read, new)
        meta = read["metadata"]
        self._wrote("status", meta["namespace"], meta["name"], phase=new["phase"])
        return written

    async def _write_records(
        self, training: Training, records: Sequence[Record], plan: Plan
    ) -> bool:
        before = {r.name: r.status.to_dict() for r in records if r.resource_version}
        changed = [r for r in plan.records if before.get(r.name) != r.status.to_dict()]
        for record in changed:
            self._must_lead()
            if record.resource_version:
                await self._cluster.put_record_status(training.namespace, record)
            else:
                await self._cluster.create_record(training, record)
            self._wrote("record", training.namespace, record.name, phase=record.status.phase)
        return bool(changed)

    async def _still(self, read: Object) -> None:
        """Nothing was written that would have noticed a change of the training: ask.

        Raises Conflict, or NotLeading.
        """
        self._must_lead()
        meta = read["metadata"]
        there = await self._cluster.training(meta["namespace"], meta["name"])
        if there["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise errors.Conflict(f"{meta['name']} has changed since it was read")

    async def _create(
        self, training: Training, wanted: Sequence[Workload], troubles: Troubles
    ) -> bool:
        """Make the workloads, some at a time; whether one was made, or there is news of trouble."""
        acted, failures = False, 0
        shared: dict[tuple[str, str], Trouble | None] = {}
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            first = [await self._make_shared(training, w, shared) for w in some]
            others = (self._make(training, w, t) for w, t in zip(some, first, strict=True))
            # All are waited for: nothing of a look may be under way after its end.
            made = await asyncio.gather(*others, return_exceptions=True)
            for workload, outcome in zip(some, made, strict=True):
                if isinstance(outcome, BaseException):
                    raise outcome
                if isinstance(outcome, Trouble):
                    failures += 1
                    acted |= troubles.add(workload.name, outcome, self._clock())
                else:
                    acted |= outcome
                    troubles.made(workload.name)
            if failures >= FAILURES:
                break
        return acted

    async def _make_shared(
        self,
        training: Training,
        workload: Workload,
        shared: dict[tuple[str, str], Trouble | None],
    ) -> Trouble | None:
        """What a workload needs beside its Job, NetworkPolicies first, once in a commit."""
        for document in jobs.shared(workload, self._namespace):
            name = (document["kind"], document["metadata"]["name"])
            if name not in shared:
                outcome = await self.post(training, document, training.uid)
                shared[name] = outcome if isinstance(outcome, Trouble) else None
            if shared[name] is not None:
                return shared[name]
        return None

    async def _make(
        self, training: Training, workload: Workload, trouble: Trouble | None
    ) -> Trouble | bool:
        """The Job, if nothing is amiss before it; as `post`."""
        if trouble is not None:
            return trouble
        job = jobs.job(workload, self._image)
        if workload.stays and workload.identity.role is Role.PREPARE:
            jobs.give_token(job, secrets.token_hex(16))
        return await self.post(training, job, training.uid)

    async def post(self, training: Training, document: Object, owner: str) -> Trouble | bool:
        """Why an object could not be made; else whether it had to be, or was there already.

        owner: the uid of its controller.
        """
        self._must_lead()
        try:
            made = await self._cluster.create(document, owner)
        except (errors.NameTaken, errors.Refused) as error:
            told = {"namespace": training.namespace, "object": document["metadata"]["name"]}
            log.warning("not created", extra={**told, "reason": error.reason, "said": str(error)})
            return Trouble(reason=error.reason, message=str(error)[:2048])
        if made:
            meta = document["metadata"]
            self._wrote("create", meta["namespace"], meta["name"], kind=document["kind"])
        return made

    async def _delete(self, training: Training, plan: Plan) -> bool:
        """Whether there was one to delete."""
        namespace = training.namespace
        wanted = [child for child in plan.delete if not child.deleting]
        for child in wanted:
            self._must_lead()
            await self._cluster.delete_job(namespace, child.name, child.uid)
            self._wrote("delete", namespace, child.name, kind="Job")
        return bool(wanted)

    async def _forget(self, training: Training, before: int) -> None:
        """Delete all records of earlier rounds, also those that an earlier look did not get to."""
        namespace = training.namespace
        for listed in await self._cluster.records(namespace, training.name):
            meta = listed["metadata"]
            number = meta["name"].rpartition("-")[2]
            if not re.fullmatch("[0-9]{5,6}", number) or int(number) >= before:
                continue
            if meta["name"] != record_name(training.name, int(number)):
                continue
            if not is_owned(listed, training.uid):
                continue
            self._must_lead()
            await self._cluster.delete_record(namespace, meta["name"], meta["uid"])
            self._wrote("delete", namespace, meta["name"], kind=round_api.KIND)

    async def tell(self, training: Training, events: Sequence[Event]) -> None:
        """Best effort: what an event tells stands in the status, too."""
        now = self._clock()
        for number, event in enumerate(events[:EVENTS]):
            try:
                await self._cluster.post_event(_event(training, event, now, number))
            except errors.ClusterError as error:
                extra = {"training": training.name, "reason": error.reason, "said": str(error)}
                log.warning("event not posted", extra=extra)
                return
            self._telemetry.wrote("event")

    def _must_lead(self) -> None:
        if not self._leads():
            raise errors.NotLeading("the lease is not held any more; nothing is written")

    def _wrote(self, what: str, namespace: str, name: str, **more: str) -> None:
        self._telemetry.wrote(what)
        extra = {"what": what, "namespace": namespace, "object": name, **more}
        log.info("written", extra=extra)


def _event(training: Training, event: Event, now: datetime, number: int) -> dict[str, Any]:
    """A core/v1 Event about the training.

    Times are whole seconds and readers sort by them, then by name: so names increase with time.
    """
    moment = int(now.timestamp() * 1e6) * 1000 + number
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{training.name}.{moment:x}",
            "namespace": training.namespace,
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": training_api.KIND,
            "name": training.name,
            "namespace": training.namespace,
            "uid": training.uid,
        },
        "reason": event.reason[:128],
        "message": event.message[:1024],
        "type": "Warning" if event.warning else "Normal",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "source": {"component": "fedtrain-operator"},
        "reportingComponent": "fedtrain.dev/operator",
    }
