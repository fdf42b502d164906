"""A federation played through by `decide` itself, everybody doing well: which pods it will have.

What is counted is what the operator would create, so that there is no second opinion about it.
Retries, quarantines and an early stop are not foreseen: they are what this leaves out.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fedoperator.api.round import Record
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.rounds.machine import decide
from fedoperator.rounds.observed import Child, ChildState, Identity, Observed, Report
from fedoperator.rounds.plan import Plan
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import Role

LIMIT = 20_000
"""Participants times rounds that are played; what is beyond is as the rounds before it."""

_START = datetime(2026, 1, 1, tzinfo=UTC)
_STEP = timedelta(milliseconds=1)
_DIGEST = "sha256:" + 64 * "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """pods: by round and role. invited: by round, from round 1 on. most: the workloads of the look
    at which most pods are there. jobs: the most at one time, with those that are over. made: all
    workloads that got pods of their own, in order. played: the last round that was. whole: whether
    that was the last one that spec.rounds allows."""

    pods: Mapping[int, Counter[Role]]
    invited: Mapping[int, tuple[str, ...]]
    evaluated: Mapping[int, tuple[str, ...]]
    most: tuple[Workload, ...]
    jobs: int
    made: tuple[Workload, ...]
    played: int
    whole: bool

    @property
    def total(self) -> int:
        return sum(counts.total() for counts in self.pods.values())


def rehearsed(spec: TrainingSpec, name: str, limit: int = LIMIT) -> Rehearsal:
    """Play the training from its beginning. limit: see LIMIT."""
    rounds = max(min(spec.rounds, limit // len(spec.participants)), min(spec.rounds, 2))
    training = Training(
        name=name, namespace="default", uid="00000000", generation=1, spec=_undisturbed(spec)
    )
    stage = _Stage(training)
    while not stage.training.status.terminal and stage.training.status.round <= rounds:
        if not stage.look():
            break
    return Rehearsal(
        pods={n: counts for n, counts in stage.pods.items() if n <= rounds},
        invited={n: tuple(r.spec.invited) for n, r in stage.records.items() if 0 < n <= rounds},
        evaluated={n: tuple(e.name for e in r.status.evaluation) for n, r in stage.records.items()},
        most=stage.most,
        jobs=stage.jobs,
        made=tuple(stage.made),
        played=rounds,
        whole=rounds == spec.rounds,
    )


def _undisturbed(spec: TrainingSpec) -> TrainingSpec:
    """Without what would keep it from being played: a suspension, and pods that are let go."""
    return spec.model_copy(update={"suspend": False, "idle_timeout": None})


@dataclass(slots=True)
class _Stage:
    """What is stored, and what was ever created."""

    training: Training
    now: datetime = _START
    records: dict[int, Record] = field(default_factory=dict)
    children: dict[Identity, Child] = field(default_factory=dict)
    reports: dict[Identity, Report] = field(default_factory=dict)
    pods: dict[int, Counter[Role]] = field(default_factory=dict)
    made: list[Workload] = field(default_factory=list)
    live: dict[Identity, Workload] = field(default_factory=dict)
    most: tuple[Workload, ...] = ()
    jobs: int = 0
    uids: Iterator[int] = field(default_factory=itertools.count)

    def look(self) -> bool:
        """Decide and do so; everybody who was asked for something has done it by the next look."""
        number = self.training.status.round
        near = [self.records[n] for n in range(number - 1, number + 2) if n in self.records]
        plan = decide(self.training, near, self._observed(), self.now)
        changed = plan.status != self.training.status or bool(plan.records or plan.create)
        for record in plan.records:
            version = str(int(record.resource_version or 0) + 1)
            self.records[record.spec.round] = record.model_copy(
                update={"resource_version": version, "uid": record.name}
            )
        self.training = self.training.model_copy(update={"status": plan.status})
        for workload in plan.create:
            self._create(workload)
        self.jobs = max(self.jobs, len(self.children))
        for child in plan.delete:
            self.children.pop(child.identity, None)
            self.live.pop(child.identity, None)
        if sum(w.nodes for w in self.live.values()) > sum(w.nodes for w in self.most):
            self.most = tuple(self.live.values())
        self._everybody_succeeds(plan)
        self.now += _STEP
        return changed or bool(plan.handed)

    def _observed(self) -> Observed:
        return Observed(
            children=tuple(self.children.values()),
            reports=tuple(self.reports.values()),
            heard_since=_START - timedelta(hours=1),
        )

    def _create(self, workload: Workload) -> None:
        identity = workload.identity
        self.pods.setdefault(identity.round, Counter())[identity.role] += workload.nodes
        self.made.append(workload)
        self.live[identity] = workload
        self.children[identity] = Child(
            identity=identity,
            name=workload.name,
            uid=str(next(self.uids)),
            nodes=workload.nodes,
            created_at=self.now,
            resident=workload.stays,
        )

    def _everybody_succeeds(self, plan: Plan) -> None:
        for identity, child in list(self.children.items()):
            if child.finished:
                continue
            result = self._result(identity)
            if child.resident:
                self.children[identity] = replace(child, state=ChildState.READY)
                if identity not in self.reports:
                    self._report(identity, child.uid, result)
            else:
                self.children[identity] = replace(child, state=ChildState.SUCCEEDED, result=result)
                del self.live[identity]
        for workload in plan.handed:
            if workload.carrier is not None:
                self._report(workload.identity, workload.carrier, self._result(workload.identity))
        first = self.training.status.round - 2
        self.reports = {i: r for i, r in self.reports.items() if i.round >= first}

    def _report(self, identity: Identity, carrier: str, result: Mapping[str, Any]) -> None:
        self.reports[identity] = Report(
            identity=identity,
            carrier=carrier,
            state=ChildState.SUCCEEDED,
            since=self.now,
            result=result,
        )

    def _result(self, identity: Identity) -> dict[str, Any]:
        """What its process would tell; every digest is as good as any other here."""
        if identity.role is Role.AGGREGATE:
            count = len(self.records[identity.round].status.candidates)
            return {"digest": _DIGEST, "verdicts": "." * count, "reasons": {}}
        if identity.role is Role.PREPARE:
            return {}
        if identity.role in (Role.EVALUATE, Role.PERSONALIZE):
            return {"samples": 1, "metrics": {}}
        return {"digest": _DIGEST, "samples": 1, "metrics": {}}
