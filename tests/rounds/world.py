"""A world for `decide`: what a cluster would store, and builders that read like English.

The world refuses what a cluster could never show: two objects of one name, a write on an old
version, a Job that succeeds before it exists. Commits can be cut after any prefix of their writes.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fedoperator.api.round import Record
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.rounds.machine import decide
from fedoperator.rounds.observed import (
    Child,
    ChildState,
    Failure,
    Identity,
    Observed,
    Trouble,
)
from fedoperator.rounds.plan import Event, Plan
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import PrepareTask, Role

START = datetime(2026, 1, 1, tzinfo=UTC)


def a_spec(participants: int = 3, **changes: Any) -> dict[str, Any]:
    """A spec as YAML would say it; keyword arguments replace top-level fields."""
    names = ["north", "south", "east", "west", "centre", *(f"site-{i}" for i in range(100))]
    spec = {
        "rounds": 3,
        "trainer": {"image": "digits", "command": ["torchrun", "train.py"]},
        "participants": [{"name": name} for name in names[:participants]],
        "exchange": {"claimName": "exchange"},
        "quorum": {"minimum": min(2, participants)},
    }
    return {**spec, **changes}


def a_training(participants: int = 3, **changes: Any) -> Training:
    return Training(
        name="digits",
        namespace="default",
        uid="1a2b3c4d-0000",
        generation=1,
        spec=TrainingSpec.model_validate(a_spec(participants, **changes)),
    )


class Conflict(Exception):
    """A write on an old version, or a second object of one name."""


@dataclass
class World:
    """Everything stored, and what was ever true of it."""

    training: Training = field(default_factory=a_training)
    now: datetime = START
    records: dict[str, Record] = field(default_factory=dict)
    jobs: dict[Identity, Child] = field(default_factory=dict)
    finished: dict[Identity, Child] = field(default_factory=dict)
    """The outcome of every attempt that was ever over: the bytes on the exchange."""
    ready_since: dict[Identity, datetime] = field(default_factory=dict)
    troubles: dict[str, Trouble] = field(default_factory=dict)
    created: list[Identity] = field(default_factory=list)
    made: dict[Identity, Workload] = field(default_factory=dict)
    """Every workload that was ever asked for."""
    asked: dict[Identity, set[str]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    """Participants whose folder a preparation has made on the exchange."""
    events: list[Event] = field(default_factory=list)
    writes: int = 0
    last_plan: Plan | None = None
    _uids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # Looking ---------------------------------------------------------------------------------

    def look(
        self, *, crash_after: int | None = None, seeing: tuple[Child, ...] | None = None
    ) -> Plan:
        """One reconcile: list, read, decide, commit; cut after `crash_after` writes."""
        self.last_plan = plan = self._decided(
            tuple(self.jobs.values()) if seeing is None else seeing
        )
        for write in itertools.islice(self._writes(plan), crash_after):
            self.writes += 1
            write()
        if crash_after is None and seeing is None:
            self._is_at_rest_after(plan)
        return plan

    def _is_at_rest_after(self, plan: Plan) -> None:
        """The watch wakes nobody for what a look itself has written, if it only learned."""
        if plan.create or plan.delete:
            return
        again = self._decided(tuple(self.jobs.values()))
        assert not again.records, "a look that only learned leaves something to the next"
        assert again.status == self.training.status
        assert not again.create
        assert not again.delete
        assert again.wake_at == plan.wake_at

    def _decided(self, children: tuple[Child, ...]) -> Plan:
        number = self.training.status.round
        wanted = (number - 1, number, number + 1)
        records = tuple(r for r in self.records.values() if r.spec.round in wanted)
        return decide(self.training, records, self.observed(children), self.now)

    def observed(self, children: tuple[Child, ...] | None = None) -> Observed:
        children = tuple(self.jobs.values()) if children is None else children
        return Observed(children=children, troubles=self.troubles)

    def settle(self, looks: int = 50) -> "World":
        """Look until nothing is left to write."""
        for _ in range(looks):
            before = self.writes
            self.look()
            if self.writes == before:
                return self
        raise AssertionError("the operator never comes to rest")

    def _writes(self, plan: Plan) -> Iterator[Any]:
        for record in plan.records:
            if not record.resource_version:
                yield lambda r=record: self._create_record(r)
            yield lambda r=record: self._update_record(r)
        if plan.status != self.training.status:
            yield lambda: self._update_status(plan)
        for workload in plan.create:
            yield lambda w=workload: self._create(w)
        for child in plan.delete:
            yield lambda c=child: self._delete(c)
        if plan.forget_before is not None:
            for name, record in list(self.records.items()):
                if record.spec.round < plan.forget_before:
                    yield lambda n=name: self.records.pop(n, None)

    def _create_record(self, record: Record) -> None:
        if record.name in self.records:
            raise Conflict(record.name)
        empty = Record(name=record.name, uid=record.name, resource_version="1", spec=record.spec)
        self.records[record.name] = empty

    def _update_record(self, record: Record) -> None:
        stored = self.records[record.name]
        if record.resource_version not in ("", stored.resource_version):
            raise Conflict(record.name)
        version = str(int(stored.resource_version) + 1)
        self.records[record.name] = record.model_copy(
            update={"resource_version": version, "uid": record.name}
        )

    def _update_status(self, plan: Plan) -> None:
        self.training = self.training.model_copy(update={"status": plan.status})
        self.events.extend(plan.events)

    def _create(self, workload: Workload) -> None:
        identity, name = workload.identity, workload.name
        if identity in self.jobs:
            return  # 409, and the owner's uid is ours
        self.created.append(identity)
        self.made[identity] = workload
        if identity.role in (Role.TRAIN, Role.EVALUATE, Role.PERSONALIZE):
            assert identity.participant in self.folders, f"{name} before its folder was made"
        if isinstance(workload.task, PrepareTask):
            self.asked[identity] = set(workload.task.participants)
        self.jobs[identity] = Child(
            identity=identity,
            name=name,
            uid=str(next(self._uids)),
            nodes=workload.nodes,
            created_at=self.now,
        )

    def _delete(self, child: Child) -> None:
        stored = self.jobs.get(child.identity)
        if stored is not None and stored.uid == child.uid:
            del self.jobs[child.identity]

    # What happens outside --------------------------------------------------------------------

    def live(self, role: Role | None = None) -> list[Identity]:
        found = [i for i, job in self.jobs.items() if not job.finished]
        return sorted((i for i in found if role is None or i.role is role), key=str)

    def becomes_ready(self, identity: Identity) -> None:
        if self.jobs[identity].state is ChildState.PENDING:
            self._replace(identity, state=ChildState.READY, trouble=None, queued=False)

    def is_queued(self, identity: Identity) -> None:
        """A queue has not admitted it yet, or has evicted it."""
        trouble = Trouble(reason="Queued", message="waits in the queue 'team-a'")
        self._replace(identity, state=ChildState.PENDING, queued=True, trouble=trouble)

    def cannot_start(self, identity: Identity, reason: str = "ImagePullFailed") -> None:
        if self.jobs[identity].state is ChildState.PENDING:
            self._replace(identity, trouble=Trouble(reason=reason, message="it cannot start"))

    def succeeds(self, identity: Identity, *, silent: bool = False, **result: Any) -> None:
        """The same attempt always has the same result: what is published stays published."""
        if identity in self.finished:
            before = self.finished[identity]
            self._replace(
                identity, state=before.state, result=before.result, failure=before.failure
            )
            return
        self.folders |= self.asked.get(identity, set())
        told = None if silent else {**self._result(identity), **result}
        self._replace(identity, state=ChildState.SUCCEEDED, result=told, ended_at=self.now)
        self.finished[identity] = self.jobs[identity]

    def fails(
        self,
        identity: Identity,
        failure: Failure = Failure.COUNTED,
        reason: str = "ScriptFailed",
        **result: Any,
    ) -> None:
        if identity in self.finished:
            self.succeeds(identity)
            return
        trouble = Trouble(reason=reason, message="it went wrong")
        self._replace(
            identity,
            state=ChildState.FAILED,
            failure=failure,
            trouble=trouble,
            result=result or None,
            ended_at=self.now,
        )
        self.finished[identity] = self.jobs[identity]

    def passes(self, **amount: float) -> None:
        self.now += timedelta(**amount)

    def _replace(self, identity: Identity, **changes: Any) -> None:
        if self.jobs[identity].finished:
            raise AssertionError("a Job that is over never changes")
        self.jobs[identity] = replace(self.jobs[identity], **changes)

    def _result(self, identity: Identity) -> dict[str, Any]:
        if identity.role is Role.EVALUATE:
            return {"metrics": {"accuracy": identity.round / 10}, "samples": 10}
        if identity.role is Role.PERSONALIZE:
            gained = {"accuracy": identity.round / 10 + 0.05}
            return {
                "metrics": gained,
                "before": {"accuracy": identity.round / 10},
                "samples": 10,
            }
        if identity.role is Role.AGGREGATE:
            record = self.records[f"digits-{identity.round:05d}"]
            candidates = [(c.name, c.attempt) for c in record.status.candidates]
            return {"digest": _digest(candidates), "verdicts": "." * len(candidates), "reasons": {}}
        if identity.role is Role.PREPARE:
            return {}
        samples = 10 * (1 + sum(identity.participant.encode()) % 7)
        return {"digest": _digest(identity), "samples": samples, "metrics": {"loss": 1.0}}

    # Reading like English --------------------------------------------------------------------

    def record(self, number: int | None = None) -> Record:
        number = self.training.status.round if number is None else number
        return self.records[f"digits-{number:05d}"]

    def participant(self, name: str, number: int | None = None) -> Any:
        return next(p for p in self.record(number).status.participants if p.name == name)

    def identity(self, name: str, role: Role = Role.TRAIN) -> Identity:
        found = [i for i in self.live(role) if i.participant == name]
        assert len(found) == 1, f"{name} has {len(found)} live children"
        return found[0]

    def all_succeed(self, role: Role | None = None) -> "World":
        """Everything that runs now gets ready and succeeds; then the operator looks."""
        for identity in self.live(role):
            self.becomes_ready(identity)
        self.settle()
        for identity in self.live(role):
            self.succeeds(identity)
        return self.settle()

    def in_round(self, number: int) -> "World":
        """All is well up to the start of this round."""
        self.settle()
        for _ in range(20 * number + 10):
            if self.training.status.round == number and self.live(Role.TRAIN):
                return self
            self.all_succeed()
        raise AssertionError(f"round {number} never begins")

    def to_the_end(self) -> "World":
        """A fair world: whatever runs succeeds, and time passes."""
        for _ in range(500):
            self.settle()
            if self.training.status.terminal:
                return self
            self.all_succeed()
            self.passes(minutes=6)
        raise AssertionError(f"never ends: {self.training.status}")

    def edited(self, **changes: Any) -> "World":
        document = {**self.training.spec.to_dict(), **changes}
        self.training = self.training.model_copy(
            update={
                "spec": TrainingSpec.model_validate(document),
                "generation": self.training.generation + 1,
            }
        )
        return self


def a_world(participants: int = 3, **changes: Any) -> World:
    return World(training=a_training(participants, **changes))


def _digest(value: object) -> str:
    return "sha256:" + hashlib.sha256(repr(value).encode()).hexdigest()
