"""Pods that stay between rounds (`spec.pods: Resident`): who they are, what they do, when they go.

Nothing else in this package knows of them. A piece of work that is handed to somebody who stays is
a child like any other, whose evidence is a report of the hub instead of the conditions of a Job; a
Job that stays is a *carrier*. Its first piece of work is the one that it was made for and named
after. It is kept while it does what somebody waits for, or has nothing to do and is not idle for
too long; in any other case it goes, and the next piece of work makes another.

The hub is the preparation that stays: it has the whole exchange, and does the aggregations.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fedoperator.api.base import seconds
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.rounds.observed import Child, ChildState, Identity, Observed, Report
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import Role

HUB = ""
"""The hub's name among the carriers; participants have theirs."""

SETTLING = timedelta(seconds=30)
"""After a new hub's first word: until then everybody has called it and told what they do."""

GOODBYE = timedelta(seconds=60)
"""From the end of a training until those who have not ended by themselves are deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """A child that stays. busy: what it does, as far as that is known; idle_since: when its last
    work was heard to be over."""

    job: Child
    busy: Identity | None
    idle_since: datetime | None


def stays(spec: TrainingSpec, role: Role) -> bool:
    """Whether what is made for this role goes on to further work.

    The initial model's does not: its pod may write where no participant's may. Nor do shards.
    """
    if spec.pods != "Resident":
        return False
    return role in (Role.PREPARE, Role.TRAIN, Role.EVALUATE, Role.PERSONALIZE)


def is_handed(spec: TrainingSpec, role: Role) -> bool:
    """Whether work of this role goes to somebody who stays."""
    if spec.pods != "Resident":
        return False
    return stays(spec, role) or (role is Role.AGGREGATE and spec.aggregation.shards == 1)


def seen(observed: Observed) -> dict[Identity, Child]:
    """All work of which something is known: by its own child, or by the hub's report."""
    children = {child.identity: child for child in observed.children}
    jobs = {child.uid: child for child in observed.children if child.resident}
    for report in observed.reports:
        job = jobs.get(report.carrier)
        known = _reported(report, job)
        if known is not None:
            children[report.identity] = known
    return children


def _reported(report: Report, job: Child | None) -> Child | None:
    """None if there is no telling: it was taken by somebody who is gone without a word."""
    child = Child(
        identity=report.identity,
        name=job.name if job is not None else "",
        uid=report.carrier,
        nodes=1,
        created_at=report.since,
        state=report.state,
        failure=report.failure,
        trouble=report.trouble,
        result=report.result,
        resident=True,
    )
    if report.state is not ChildState.READY or (job is not None and not job.finished):
        return child
    if job is None or job.state is not ChildState.FAILED:
        return None
    return replace(child, state=job.state, failure=job.failure, trouble=job.trouble)


def carriers(observed: Observed, now: datetime) -> dict[str, Carrier]:
    """Who stays and is there, by participant; of several the one that was made last."""
    found: dict[str, Carrier] = {}
    reports: dict[tuple[str, str], list[Report]] = {}
    for report in observed.reports:
        # Of its own carrier only: by another's uid nobody speaks for that one.
        reports.setdefault((report.carrier, report.identity.participant), []).append(report)
    settled = observed.heard_since is not None and now - observed.heard_since >= SETTLING
    alive = [c for c in observed.children if c.resident and not c.finished and not c.deleting]
    for job in sorted(alive, key=lambda child: (child.created_at, child.name)):
        who = job.identity.participant
        found[who] = _carrier(job, reports.get((job.uid, who), []), settled)
    return found


def settles_at(carriers: Iterable[Carrier], since: datetime | None) -> datetime | None:
    """When a hub heard since then gives up those who run, and of whom it has heard nothing."""
    unheard = any(
        c.busy is None and c.idle_since is None and c.job.state is ChildState.READY
        for c in carriers
    )
    return since + SETTLING if unheard and since is not None else None


def _carrier(job: Child, reports: Sequence[Report], settled: bool) -> Carrier:
    """Of whom nothing was heard is at its first work; unless it runs and the hub is new."""
    busy = None if reports or (job.state is ChildState.READY and not settled) else job.identity
    idle_since = None
    for report in reports:
        if report.state is ChildState.READY:
            busy = report.identity
        elif idle_since is None or report.since > idle_since:
            idle_since = report.since
    return Carrier(job=job, busy=busy, idle_since=None if busy is not None else idle_since)


def usable(carrier: Carrier, live: frozenset[Identity]) -> bool:
    """Whether it may take work: it has none, or what it does is waited for."""
    return carrier.busy is None or carrier.busy in live


def placed(
    wanted: Iterable[tuple[Workload, bool]],
    carriers: Mapping[str, Carrier],
    live: frozenset[Identity],
) -> tuple[list[Workload], list[Workload]]:
    """(what gets processes of its own, what is handed to those who stay).

    wanted: everything live, and whether something is known of it already. Of two new pieces of
    work of one participant the first makes the carrier, which takes the second once it is there.
    """
    uids = {who: c.job.uid for who, c in carriers.items() if usable(c, live)}
    made: set[str] = set()
    own: list[Workload] = []
    handed: list[Workload] = []
    firsts = {c.job.identity for c in carriers.values()}
    for workload, known in wanted:
        spec, identity = workload.training.spec, workload.identity
        if not is_handed(spec, identity.role):
            own += [] if known else [workload]
        elif identity in firsts:
            continue
        elif (uid := uids.get(identity.participant)) is not None:
            handed.append(replace(workload, carrier=uid))
        elif not known and stays(spec, identity.role) and identity.participant not in made:
            own.append(replace(workload, stays=True))
            made.add(identity.participant)
    return own, handed


def superfluous(
    training: Training,
    observed: Observed,
    carriers: Mapping[str, Carrier],
    live: frozenset[Identity],
) -> Iterator[Child]:
    """Those who stay and should not: removed, suspended, or at work that nobody waits for."""
    kept = {carrier.job.uid: carrier for carrier in carriers.values()}
    for child in observed.children:
        if not child.resident or child.finished or child.deleting:
            continue
        carrier = kept.get(child.uid)
        who = child.identity.participant
        stranger = who != HUB and training.spec.site(who) is None
        # An aggregation finishes before a suspended training rests.
        folds = who == HUB and any(identity.role is Role.AGGREGATE for identity in live)
        rests = training.spec.suspend and not folds
        if carrier is None or stranger or rests or not usable(carrier, live):
            yield child


def leaves_at(training: Training, carrier: Carrier) -> datetime | None:
    """When it is let go for having nothing to do; the hub is not."""
    patience = training.spec.idle_timeout
    if patience is None or carrier.idle_since is None or carrier.job.identity.participant == HUB:
        return None
    return carrier.idle_since + seconds(patience)


def latest_round(child: Child, observed: Observed) -> int:
    """The round of the last work that it is known to have taken."""
    numbers = [r.identity.round for r in observed.reports if r.carrier == child.uid]
    return max([child.identity.round, *numbers])
