"""A world in which pods stay between rounds: a hub hands out work and tells what came of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from world import World, a_training

from fedoperator.rounds.observed import (
    Child,
    ChildState,
    Failure,
    Identity,
    Observed,
    Report,
    Trouble,
)
from fedoperator.rounds.plan import Plan
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import Role


@dataclass
class StayingWorld(World):
    """handed: what the hub was last told to hand out. reports: what it tells."""

    handed: dict[Identity, Workload] = field(default_factory=dict)
    reports: dict[Identity, Report] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)

    @property
    def hub(self) -> Identity | None:
        alive = [
            i
            for i, job in self.jobs.items()
            if job.resident and i.role is Role.PREPARE and job.state is ChildState.READY
        ]
        return alive[-1] if alive else None

    def observed(self, children: tuple[Child, ...] | None = None) -> Observed:
        children = tuple(self.jobs.values()) if children is None else children
        known = self.hub is not None
        if not known:
            self.reports.clear()
        return Observed(
            children=children,
            troubles=self.troubles,
            reports=tuple(self.reports.values()),
            heard_since=self.now if known else None,
        )

    def look(self, *, crash_after: int | None = None, seeing: Any = None) -> Plan:
        self.last_plan = plan = self._decided(
            tuple(self.jobs.values()) if seeing is None else seeing
        )
        for index, write in enumerate(self._writes(plan)):
            if index == crash_after:
                return plan
            self.writes += 1
            write()
        if crash_after is None and self.hub is not None:
            before = self.handed
            self.handed = {w.identity: w for w in plan.handed}
            self.released |= set(plan.released)
            self.writes += before.keys() != self.handed.keys()
        if crash_after is None and seeing is None:
            self._is_at_rest_after(plan)
        return plan

    # Who works --------------------------------------------------------------------------------

    def carrier(self, identity: Identity) -> Identity | None:
        """The Job that does this piece of work, or would."""
        if identity in self.jobs:
            return None if self.jobs[identity].finished else identity
        workload = self.handed.get(identity)
        found = [i for i, job in self.jobs.items() if workload and job.uid == workload.carrier]
        return found[0] if found and not self.jobs[found[0]].finished else None

    def live(self, role: Role | None = None) -> list[Identity]:
        if self.hub is None:
            self.reports.clear()  # they were in its memory
        over = {i for i, r in self.reports.items() if r.state is not ChildState.READY}
        jobs = [i for i, job in self.jobs.items() if not job.finished and i not in over]
        handed = [i for i in self.handed if i not in over and self.carrier(i) is not None]
        found = sorted({*jobs, *handed}, key=str)
        return [i for i in found if role is None or i.role is role]

    def becomes_ready(self, identity: Identity) -> None:
        carrier = self.carrier(identity)
        if carrier is None:
            return
        super().becomes_ready(carrier)
        if self.jobs[carrier].resident and identity not in self.reports:
            self._report(identity, carrier, ChildState.READY)

    def succeeds(self, identity: Identity, *, silent: bool = False, **result: Any) -> None:
        carrier = self.carrier(identity)
        if carrier is None or not self.jobs[carrier].resident:
            if carrier is not None:
                super().succeeds(identity, silent=silent, **result)
            return
        self.becomes_ready(identity)
        if identity not in self.finished:
            self.folders |= self.asked.get(identity, set())
            if identity.role is Role.PREPARE:
                task: Any = self.made[identity].task if identity in self.made else None
                task = task or self.handed[identity].task
                self.folders |= set(task.participants)
            told = None if silent else {**self._result(identity), **result}
            state = ChildState.SUCCEEDED
            self.finished[identity] = replace(self.jobs[carrier], state=state, result=told)
        before = self.finished[identity]
        if before.failure is None:
            self._report(identity, carrier, ChildState.SUCCEEDED, result=before.result)
        else:
            self._ends_badly(identity, carrier)

    def fails(
        self,
        identity: Identity,
        failure: Failure = Failure.COUNTED,
        reason: str = "ScriptFailed",
        **result: Any,
    ) -> None:
        carrier = self.carrier(identity)
        if carrier is None or not self.jobs[carrier].resident:
            if carrier is not None:
                super().fails(identity, failure, reason, **result)
            return
        if identity in self.finished:
            self.succeeds(identity)
            return
        self.becomes_ready(identity)
        trouble = Trouble(reason=reason, message="it went wrong")
        self.finished[identity] = replace(
            self.jobs[carrier],
            state=ChildState.FAILED,
            failure=failure,
            trouble=trouble,
            result=result or None,
        )
        self._ends_badly(identity, carrier)

    def _ends_badly(self, identity: Identity, carrier: Identity) -> None:
        """A child of the hub ends alone; whoever stays ends with its work."""
        done = self.finished[identity]
        assert done.failure is not None, "asked only of what failed"
        if carrier.role is Role.PREPARE and identity != carrier:
            told = {"failure": done.failure, "trouble": done.trouble, "result": done.result}
            self._report(identity, carrier, ChildState.FAILED, **told)
        else:
            self._dies(carrier, done.failure, done.trouble)

    def _dies(self, carrier: Identity, failure: Failure, trouble: Trouble | None) -> None:
        self._replace(carrier, state=ChildState.FAILED, failure=failure, trouble=trouble)
        if carrier.role is Role.PREPARE:
            self.reports.clear()

    def _report(
        self, identity: Identity, carrier: Identity, state: ChildState, **more: Any
    ) -> None:
        uid = self.jobs[carrier].uid
        self.reports[identity] = Report(
            identity=identity, carrier=uid, state=state, since=self.now, **more
        )

    def _create(self, workload: Workload) -> None:
        super()._create(workload)
        identity = workload.identity
        if workload.stays and not self.jobs[identity].resident:
            self.jobs[identity] = replace(self.jobs[identity], resident=True)

    def settle(self, looks: int = 50) -> "StayingWorld":
        super().settle(looks)
        # Of two, made from an old list, the elder goes; at the end both have a minute for goodbye.
        ends = self.training.status.terminal
        names = [] if ends else [identity.participant for identity in self.carriers()]
        assert len(names) == len(set(names)), "two that stay for one participant"
        return self

    def carriers(self) -> Iterator[Identity]:
        """Those who stay and are there, the hub aside."""
        for identity, job in self.jobs.items():
            if job.resident and not job.finished and identity.role is not Role.PREPARE:
                yield identity


def a_staying_world(participants: int = 3, **changes: Any) -> StayingWorld:
    return StayingWorld(training=a_training(participants, pods="Resident", **changes))
