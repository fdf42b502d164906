"""The heart: `decide` says what a training needs next. No clock, no client, no side effect.

A look goes through a round in the order of its life: what children left behind is harvested before
any deadline is applied; then every assignment goes on (retry, suspend, resume, drop); then the
round itself (prepared → initialised or trained → aggregated → published → evaluated); then the
next round begins. What ought to run follows from the records alone, so that a crash between any
two writes, or a stale list of children, changes nothing but the time it takes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from fedoperator.api.base import timestamp
from fedoperator.api.round import Assignment, Record, RoundStatus
from fedoperator.api.training import Training
from fedoperator.rounds import (
    accounting,
    bounds,
    deadline,
    events,
    evidence,
    life,
    preparation,
    resident,
    summary,
)
from fedoperator.rounds.look import Look
from fedoperator.rounds.observed import OVERDUE, Child, Identity, Observed
from fedoperator.rounds.plan import Plan
from fedoperator.rounds.workloads import Workload, workload
from fedtrain.contract import Role


def decide(
    training: Training, records: Sequence[Record], observed: Observed, now: datetime
) -> Plan:
    """The next writes for a training.

    records: those of the rounds status.round - 1 to status.round + 1 that exist, read *after* the
    children were listed: an old list costs a refused creation, an old record would cost work.
    """
    if training.deleting:
        return Plan(status=training.status)
    look = Look(
        training,
        resident.seen(observed),
        observed.troubles,
        timestamp(now),
        resident.carriers(observed, timestamp(now)),
    )
    if training.status.terminal:
        return _farewell(look, observed)

    rounds = {r.spec.round: _gone_on(look, life.filled_in(look, r)) for r in records}
    if not rounds:
        first = life.lost_or_first(look)
        rounds[first.spec.round] = _gone_on(look, first)
    look = replace(look, prepared=preparation.prepared_generation(training.status, rounds.values()))
    while True:
        current = rounds[max(rounds)]
        previous = rounds.get(current.spec.round - 1)
        rounds[current.spec.round] = current = life.advanced(look, current, previous)
        if previous is not None:
            rounds[previous.spec.round] = previous = life.measured(look, previous)
        if not life.next_may_begin(look, current, previous):
            break
        number = current.spec.round + 1
        rounds[number] = _gone_on(look, life.begun(look, number, current))

    status = summary.status(training, rounds, look.now)
    if status.terminal:
        rounds = {number: life.abandoned(record) for number, record in rounds.items()}
    before = {record.spec.round: record for record in records}
    rounds = {
        n: bounds.bounded(training.spec, accounting.counted(look, status, before.get(n), record))
        for n, record in rounds.items()
    }
    current = rounds[max(rounds)]
    live = {} if status.terminal else dict(_live(rounds))
    after = training.model_copy(update={"status": status})
    create, handed = resident.placed(_wanted(look, after, live), look.carriers, frozenset(live))
    changed = tuple(r for n, r in sorted(rounds.items()) if r != before.get(n))
    return Plan(
        status=status,
        records=changed,
        create=tuple(create),
        delete=_superfluous(look, observed, frozenset(live), current.spec.round),
        handed=tuple(handed),
        released=tuple(_released(look)),
        over=status.terminal,
        forget_before=_beyond_history(after),
        events=events.of(training.spec, training.status, status, before, rounds),
        wake_at=_leaving_at(after, observed)
        if status.terminal
        else _wake_at(look, rounds, observed),
    )


def _gone_on(look: Look, record: Record) -> Record:
    """The record with what its children have to say; one that was deleted by hand has some, too."""
    return preparation.gone_on(look, evidence.harvested(look, record))


def _assignments(status: RoundStatus) -> Iterator[tuple[Role, Assignment]]:
    for role, one in (
        (Role.PREPARE, status.prepare),
        (Role.INIT, status.init if status.phase == "Initialising" else None),
        (Role.AGGREGATE, status.aggregation if status.phase == "Aggregating" else None),
    ):
        if one is not None:
            yield role, one
    if status.phase == "Training":
        yield from ((Role.TRAIN, p) for p in status.participants)
    yield from ((Role.EVALUATE, e) for e in status.evaluation)
    yield from ((Role.PERSONALIZE, t) for t in status.personalization)


def _live(
    rounds: Mapping[int, Record],
) -> Iterator[tuple[Identity, tuple[Record, Assignment]]]:
    """Everything that ought to have a child now."""
    for number, record in sorted(rounds.items()):
        for role, assignment in _assignments(record.status):
            if assignment.is_live:
                identity = Identity(role, number, assignment.name, assignment.attempt)
                yield identity, (record, assignment)


def _wanted(
    look: Look, after: Training, live: Mapping[Identity, tuple[Record, Assignment]]
) -> Iterator[tuple[Workload, bool]]:
    """What is to be placed, and whether something is known of it already.

    What has a child of its own is placed; to those who stay everything is said with every plan.
    """
    for identity, (record, assignment) in live.items():
        known = identity in look.children
        if known and not resident.is_handed(after.spec, identity.role):
            continue
        asked = workload(after, record, identity.role, assignment)
        if asked is not None:
            yield asked, known


def _superfluous(
    look: Look, observed: Observed, live: frozenset[Identity], current: int
) -> tuple[Child, ...]:
    """Unfinished children nobody waits for; finished ones are evidence, kept for two rounds."""
    gone = (
        []
        if look.training.status.terminal
        else list(resident.superfluous(look.training, observed, look.carriers, live))
    )
    for child in observed.children:
        if child.finished:
            latest = resident.latest_round(child, observed)
            gone += [child] if latest <= current - 2 and not child.deleting else []
        elif not child.resident and not child.deleting and child.identity not in live:
            gone.append(child)
    return tuple(gone)


def _farewell(look: Look, observed: Observed) -> Plan:
    """After the end: those who stay get time to end their scripts, everybody else is deleted."""
    status = look.training.status
    until = (status.finished_at or look.now) + resident.GOODBYE
    patient = look.now < until
    left = [c for c in observed.children if not c.finished and not c.deleting]
    return Plan(
        status=status,
        delete=tuple(c for c in left if not (c.resident and patient)),
        over=True,
        forget_before=_beyond_history(look.training),
        wake_at=_leaving_at(look.training, observed) if patient else None,
    )


def _leaving_at(training: Training, observed: Observed) -> datetime | None:
    """Until when those who stay have time to end by themselves; None if nobody is left."""
    staying = any(c.resident and not c.finished and not c.deleting for c in observed.children)
    ended = training.status.finished_at
    return ended + resident.GOODBYE if staying and ended is not None else None


def _released(look: Look) -> Iterator[str]:
    """The uids of those who have had nothing to do for too long."""
    for carrier in look.carriers.values():
        at = resident.leaves_at(look.training, carrier)
        if at is not None and look.now >= at:
            yield carrier.job.uid


def _beyond_history(training: Training) -> int | None:
    oldest = training.status.round - training.spec.history + 1
    return oldest if oldest > 0 else None


def _wake_at(look: Look, rounds: Mapping[int, Record], observed: Observed) -> datetime | None:
    """The earliest moment at which something happens that no event tells of."""
    spec, moments = look.training.spec, []
    settled = resident.settles_at(look.carriers.values(), observed.heard_since)
    if settled is not None and settled > look.now:
        moments.append(settled)
    for number, record in rounds.items():
        status = record.status
        # If it is past, the others wait for something else, such as a newcomer's folder.
        if not spec.suspend and status.not_before is not None and status.not_before > look.now:
            moments.append(status.not_before)
        for role, assignment in _assignments(status):
            if assignment.state == "Retrying" and assignment.not_before and not spec.suspend:
                moments.append(assignment.not_before)
            if assignment.state == "Invited":
                identity = Identity(role, number, assignment.name, assignment.attempt)
                child = look.children.get(identity)
                overdue = child.created_at + OVERDUE if child is not None else look.now + OVERDUE
                moments.append(overdue if overdue > look.now else look.now + OVERDUE)
            clocks = {
                Role.TRAIN: status.quorum_at,
                Role.EVALUATE: status.evaluating_since,
                Role.PERSONALIZE: status.personalizing_since,
            }
            if role in clocks and not spec.suspend:
                due = deadline.due(assignment, spec.quorum, clocks[role])
                moments.extend([due] if due is not None else [])
    for carrier in look.carriers.values():
        at = resident.leaves_at(look.training, carrier)
        moments.extend([at] if at is not None and at > look.now else [])
    return min(moments, default=None)
