"""One look at a training: list the children, then read the parent and its records, decide, commit.

In this order, because late children are fine (an old list costs a refused creation) and a late
parent is not (an old record would cost work).
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import pydantic

from fedoperator import errors
from fedoperator.api import admission
from fedoperator.api.base import Condition, timestamp
from fedoperator.api.round import Assignment, Record, record_name
from fedoperator.api.status import TrainingStatus
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.cluster.api import Object
from fedoperator.cluster.client import Cluster, is_owned
from fedoperator.cluster.commit import Committer
from fedoperator.cluster.gangs import Gangs
from fedoperator.cluster.hubs import Hubs
from fedoperator.cluster.series import Seen
from fedoperator.cluster.telemetry import Telemetry
from fedoperator.cluster.troubles import Troubles
from fedoperator.cluster.workqueue import PAUSE, Key, Next
from fedoperator.rounds import observed
from fedoperator.rounds.machine import decide
from fedoperator.rounds.observed import Child, ChildState, Identity, Observed
from fedtrain.contract import Role

EXPLAINED = 20
"""Children whose events are asked for in one look; where more wait, they wait for the same."""

FULL_PAUSE_FROM = 100
"""Participants from which on a training is looked at once in `workqueue.PAUSE` at most."""

LEAST_PAUSE = 0.25
"""Seconds; of the smallest trainings."""

log = logging.getLogger(__name__)


class Reconciler:
    """Looks at trainings, as often as asked."""

    def __init__(
        self,
        cluster: Cluster,
        committer: Committer,
        telemetry: Telemetry,
        hubs: Hubs,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._committer = committer
        self._telemetry = telemetry
        self._hubs = hubs
        self._clock = clock
        self._gangs = Gangs(committer)
        self._troubles: dict[Key, tuple[str, Troubles]] = {}

    async def look(self, key: Key) -> Next:
        """Raises errors.ClusterError; whatever was written until then stands."""
        namespace, name = key
        listed = await self._cluster.jobs(namespace, name)
        try:
            read = await self._cluster.training(namespace, name)
        except errors.Gone:
            self._forget(key)
            return Next(gone=True)
        if "deletionTimestamp" in read["metadata"]:
            # Garbage collection does the rest; it is gone for good only with the last child.
            self._forget(key)
            return Next()
        invalid = _invalid_spec(read)
        if invalid is not None:
            await self._block(read, "InvalidSpec", invalid)
            return Next()
        training = Training.from_object(read)
        records = await self._records(training)
        now = self._clock()
        owned = [job for job in listed if is_owned(job, training.uid)]
        children, lost_at = await self._children(training, records, owned, now)
        troubles = self._troubles_of(key, training.uid)
        try:
            reports, since = await self._hubs.heard(key, training, owned, self._pods_of(training))
        except errors.HubUnreachable as error:
            await self._block(read, error.reason, str(error))
            raise
        seen = Observed(
            children=tuple(children),
            troubles=troubles.known(),
            reports=reports,
            heard_since=since,
        )
        try:
            plan = decide(training, records, seen, now)
        except Exception as error:
            # A bug, and the user must see it where they look; the queue logs it and tries again.
            sentence = f"a bug of the operator ({type(error).__name__}); its log has the rest"
            await self._block(read, "InternalError", sentence)
            raise
        try:
            acted = await self._committer.commit(read, training, records, plan, troubles)
        except (errors.NameTaken, errors.Refused) as error:
            await self._block(read, error.reason, str(error))
            raise
        ungrouped = await self._gangs.keep(training, owned)
        self._hubs.tell(key, plan)
        self._telemetry.seen(
            key,
            Seen(
                status=plan.status,
                rounds=training.spec.rounds,
                records=_newest([*records, *plan.records]),
            ),
        )
        soon = now if acted else troubles.wake_at()
        again = now + observed.OVERDUE if ungrouped else None
        moments = [moment for moment in (plan.wake_at, soon, lost_at, again) if moment is not None]
        return Next(wake_at=min(moments, default=None), pause=_pause(training))

    def _forget(self, key: Key) -> None:
        uid, _ = self._troubles.pop(key, ("", None))
        self._committer.forget(uid)
        self._gangs.forget(uid)
        self._hubs.forget(key)
        self._telemetry.forgotten(key)

    def _troubles_of(self, key: Key, uid: str) -> Troubles:
        """Those of this very training, not of one of the same name before it."""
        known = self._troubles.get(key)
        if known is None or known[0] != uid:
            gone = known[0] if known is not None else ""
            self._committer.forget(gone)
            self._gangs.forget(gone)
            known = self._troubles[key] = (uid, Troubles())
        return known[1]

    async def _records(self, training: Training) -> list[Record]:
        """Those of the round before the current one, of the current and of the next.

        The next is begun when the current one was written as published, and not earlier.
        """

        def read(number: int) -> Awaitable[Record | None]:
            name = record_name(training.name, number)
            return self._cluster.record(training.namespace, name, training.uid)

        number = training.status.round
        found = list(await asyncio.gather(*map(read, range(max(0, number - 1), number + 1))))
        current = found[-1]
        if current is None or current.status.phase == "Published":
            found.append(await read(number + 1))
        return [record for record in found if record is not None]

    async def _children(
        self,
        training: Training,
        records: Sequence[Record],
        owned: Sequence[Object],
        now: datetime,
    ) -> tuple[list[Child], datetime | None]:
        """The children, with their pods and events where the Job does not tell enough.

        And when a pod of theirs counts as lost, of which no event will tell.
        """
        waited_for = set(_waited_for(records))
        # One that stays may be at other work than what it was made for.
        busy = {identity.participant for identity in waited_for}
        asked = {
            job["metadata"]["uid"]
            for job in owned
            if (identity := observed.identity_of(job)) is not None
            and (identity in waited_for or (observed.stays(job) and identity.participant in busy))
            and observed.wants_pods(job, now)
        }
        pods = await self._pods(training, asked) if asked else {}
        children, explained = [], 0
        for job in owned:
            uid = job["metadata"]["uid"]
            child = observed.child(job, pods.get(uid, ()))
            child = child and observed.with_its_nodes(child, pods.get(uid, ()), now)
            silent = child is not None and child.trouble is None
            if child is None or uid not in asked or not silent or explained >= EXPLAINED:
                children += [] if child is None else [child]
                continue
            if child.state is ChildState.PENDING:
                explained += 1
                events = await self._events(training.namespace, job, pods.get(uid, ()))
                child = observed.child(job, pods.get(uid, ()), events) or child
            children.append(child)
        lost_at = observed.lost_at(pod for of_one in pods.values() for pod in of_one)
        return children, lost_at if lost_at is not None and lost_at > now else None

    def _pods_of(self, training: Training) -> Callable[[str], Awaitable[Sequence[Object]]]:
        async def pods(uid: str) -> Sequence[Object]:
            return (await self._pods(training, {uid})).get(uid, [])

        return pods

    async def _pods(self, training: Training, jobs: set[str]) -> Mapping[str, list[Object]]:
        """The uids of the Jobs → their pods, in one list."""
        pods: dict[str, list[Object]] = defaultdict(list)
        for pod in await self._cluster.pods(training.namespace, training.name, jobs):
            for reference in pod["metadata"].get("ownerReferences") or []:
                if reference.get("controller") and reference.get("uid") in jobs:
                    pods[reference["uid"]].append(pod)
        return pods

    async def _events(self, namespace: str, job: Object, pods: Sequence[Object]) -> list[Object]:
        """Of the Job, and of one of its pods: a volume that cannot be mounted is told there."""
        events = await self._cluster.events(namespace, job["metadata"]["uid"])
        for pod in pods[:1]:
            events += await self._cluster.events(namespace, pod["metadata"]["uid"])
        return events

    async def _block(self, read: Object, reason: str, message: str) -> None:
        """Tell the user what the machine cannot: it never saw this training."""
        old = TrainingStatus.model_validate(read.get("status") or {})
        if old.terminal:
            return
        generation, now = read["metadata"].get("generation", 1), timestamp(self._clock())
        before = {c.type: c for c in old.conditions}.get("Blocked")
        since = now
        if before is not None and before.status == "True":
            since = before.last_transition_time
        blocked = Condition(
            type="Blocked",
            status="True",
            reason=reason,
            message=message[:2048],
            last_transition_time=since,
            observed_generation=generation,
        )
        others = [c for c in old.conditions if c.type != "Blocked"]
        status = old.model_copy(
            update={
                # Of any other spec the machine is still to see that it is new.
                "observed_generation": generation
                if reason == "InvalidSpec"
                else old.observed_generation,
                "phase": "Blocked",
                "reason": reason,
                "message": message[:2048],
                "conditions": [*others, blocked],
            }
        )
        await self._committer.write_status(read, status)
        meta = read["metadata"]
        self._telemetry.seen((meta["namespace"], meta["name"]), Seen(status=status))


def _pause(training: Training) -> float:
    """Seconds between two looks: few participants have few events, and wait for each of them."""
    return min(PAUSE, max(LEAST_PAUSE, PAUSE * len(training.spec.participants) / FULL_PAUSE_FROM))


def _invalid_spec(read: Object) -> str | None:
    """What is wrong with a spec that is new or was wrong before; None if nothing is.

    The API server has refused nearly all of it already; what its rules cannot say is left for here.
    """
    status = read.get("status") or {}
    is_new = status.get("observedGeneration") != read["metadata"].get("generation")
    if is_new or status.get("reason") == "InvalidSpec":
        found = [str(problem) for problem in admission.problems(None, read)]
        if found:
            return "; ".join(found)
    try:
        TrainingSpec.model_validate(read["spec"])
    except pydantic.ValidationError as error:
        return str(error)
    return None


def _waited_for(records: Sequence[Record]) -> Iterator[Identity]:
    """The attempts whose outcome is not in the records yet."""
    for record in records:
        status, number = record.status, record.spec.round
        of_role: tuple[tuple[Role, Sequence[Assignment | None]], ...] = (
            (Role.PREPARE, [status.prepare]),
            (Role.INIT, [status.init]),
            (Role.TRAIN, status.participants),
            (Role.AGGREGATE, [status.aggregation]),
            (Role.EVALUATE, status.evaluation),
            (Role.PERSONALIZE, status.personalization),
        )
        for role, assignments in of_role:
            for a in assignments:
                if a is not None and (a.is_live or a.state == "Suspended"):
                    yield Identity(role, number, a.name, a.attempt)


def _newest(records: Sequence[Record]) -> tuple[Record, ...]:
    """One of each round, the later in the sequence, in order of round."""
    by_round = {record.spec.round: record for record in records}
    return tuple(record for _, record in sorted(by_round.items()))
