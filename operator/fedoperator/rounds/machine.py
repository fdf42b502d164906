"""The heart: `decide` says what a training needs next. No clock, no client, no side effect.

A look goes through a round in the order of its life: what children left behind is harvested before
any deadline is applied; then every assignment goes on (retry, suspend, resume, drop); then the
round itself (prepared → initialised or trained → aggregated → published → evaluated); then the
next round begins. What ought to run follows from the records alone, so that a crash between any
two writes, or a stale list of children, changes nothing but the time it takes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fedoperator.api.base import GlobalModel, timestamp
from fedoperator.api.round import Assignment, Candidate, Record, RoundSpec, RoundStatus, record_name
from fedoperator.api.training import Training
from fedoperator.rounds import (
    deadline,
    evaluation,
    events,
    quorum,
    results,
    retry,
    selection,
    stop,
    summary,
)
from fedoperator.rounds.observed import (
    OVERDUE,
    Child,
    ChildState,
    Failure,
    Identity,
    Observed,
    Trouble,
)
from fedoperator.rounds.plan import Plan
from fedoperator.rounds.quorum import Standing
from fedoperator.rounds.retry import Budget
from fedoperator.rounds.workloads import workload, workload_name
from fedtrain import contract
from fedtrain.contract import Role


@dataclass(frozen=True, slots=True)
class Look:
    """What a look has to go by."""

    training: Training
    children: Mapping[Identity, Child]
    troubles: Mapping[str, Trouble]
    now: datetime

    @property
    def edited(self) -> bool:
        """Whether the spec changed since the last look; every back-off ends then."""
        return self.training.generation != self.training.status.observed_generation

    def is_past(self, moment: datetime | None) -> bool:
        return moment is None or self.now >= moment or self.edited


def decide(
    training: Training, records: Sequence[Record], observed: Observed, now: datetime
) -> Plan:
    """The next writes for a training.

    records: those of the rounds status.round - 1 to status.round + 1 that exist, read *after* the
    children were listed: an old list costs a refused creation, an old record would cost work.
    """
    if training.deleting:
        return Plan(status=training.status)
    children = {child.identity: child for child in observed.children}
    look = Look(training, children, observed.troubles, timestamp(now))
    if training.status.terminal:
        return Plan(status=training.status, delete=_superfluous(look, frozenset()))

    rounds = {record.spec.round: _harvested(look, record) for record in records}
    if not rounds or max(rounds) < training.status.round:
        first = _lost_or_first(training)
        rounds[first] = _begun(look, first)
    while True:
        current = rounds[max(rounds)]
        rounds[current.spec.round] = current = _advanced(look, current)
        previous = rounds.get(current.spec.round - 1)
        if previous is not None:
            rounds[previous.spec.round] = previous = _measured(look, previous)
        if not _next_may_begin(look, current, previous):
            break
        number = current.spec.round + 1
        rounds[number] = _begun(look, number)

    status = summary.status(training, rounds, look.now)
    if status.terminal:
        rounds[current.spec.round] = current = _abandoned(current)
    live = {identity: pair for identity, pair in _live(rounds)} if not status.terminal else {}
    after = training.model_copy(update={"status": status})
    wanted = [
        workload(after, record, identity.role, assignment)
        for identity, (record, assignment) in live.items()
        if identity not in children
    ]
    before = {record.spec.round: record for record in records}
    changed = tuple(r for n, r in sorted(rounds.items()) if r != before.get(n))
    return Plan(
        status=status,
        records=changed,
        create=tuple(w for w in wanted if w is not None),
        delete=_superfluous(look, frozenset(live), current.spec.round),
        forget=_beyond_history(training, changed),
        events=events.of(training.status, status, before, rounds),
        wake_at=None if status.terminal else _wake_at(look, rounds),
    )


def _lost_or_first(training: Training) -> int:
    """The round to begin without a record: the first; or the current, whose record was deleted."""
    model = training.status.global_model
    if model is not None and model.round >= training.status.round:
        return model.round + 1
    return training.status.round


# Rounds begin ------------------------------------------------------------------------------------


def _begun(look: Look, number: int) -> Record:
    spec = look.training.spec
    invited: tuple[str, ...] = (spec.participants[0].name,)
    if number > 0:
        names = [p.name for p in spec.participants]
        invited = selection.select(names, spec.selection, number, at_least=spec.quorum.minimum)
    record = Record(
        name=record_name(look.training.name, number),
        spec=RoundSpec(
            training=look.training.name,
            round=number,
            generation=look.training.generation,
            invited=list(invited),
        ),
    )
    return _filled_in(look, record)


def _filled_in(look: Look, record: Record) -> Record:
    """A record whose first status was never written, because of a crash or because it is new."""
    if record.status.started_at is not None:
        return record
    prepared = look.training.status.prepared_generation == record.spec.generation
    status = RoundStatus(
        started_at=look.now,
        prepare=None if prepared else Assignment(),
        participants=[Assignment(name=n) for n in record.spec.invited if record.spec.round > 0],
    )
    return record.model_copy(update={"status": status})


def _next_may_begin(look: Look, current: Record, previous: Record | None) -> bool:
    """The evaluation of a model runs beside the next round, never beside the one after it."""
    spec, number = look.training.spec, current.spec.round
    if current.status.phase != "Published" or spec.suspend or summary.is_last(look.training, current):
        return False
    if previous is not None and any(e.is_open for e in previous.status.evaluation):
        return False
    waits = spec.stop is not None and evaluation.is_due(spec, number)
    return not (waits and any(e.is_open for e in current.status.evaluation))


# Evidence ----------------------------------------------------------------------------------------


def _harvested(look: Look, record: Record) -> Record:
    """The record with the outcome of every child that is over, before anything else is decided."""
    record = _filled_in(look, record)
    status, number = record.status, record.spec.round
    retries = look.training.spec.retries

    def settle(role: Role, assignment: Assignment | None, budget: Budget) -> Assignment | None:
        return None if assignment is None else _settled(look, role, number, assignment, budget)

    def settle_all(role: Role, assignments: Sequence[Assignment]) -> list[Assignment]:
        return [_settled(look, role, number, a, Budget(retries)) for a in assignments]

    endless = Budget(None, fatal=frozenset())
    update = {
        "prepare": settle(Role.PREPARE, status.prepare, endless),
        "init": settle(Role.INIT, status.init, Budget(None, fatal=frozenset({Failure.CONTRACT}))),
        "participants": settle_all(Role.TRAIN, status.participants),
        "evaluation": settle_all(Role.EVALUATE, status.evaluation),
    }
    status = status.model_copy(update=update)
    if status.phase == "Aggregating" and status.aggregation is not None:
        aggregation = settle(Role.AGGREGATE, status.aggregation, endless)
        status = status.model_copy(update={"aggregation": aggregation})
        status = _with_verdicts(look, number, status)
    return record.model_copy(update={"status": status})


_NEEDS_RESULT = frozenset({Role.INIT, Role.AGGREGATE, Role.EVALUATE})
"""Their digest or metrics come in the message alone; a participant's are read again from files."""


def _settled(
    look: Look, role: Role, number: int, assignment: Assignment, budget: Budget
) -> Assignment:
    if assignment.state not in ("Invited", "Running", "Suspended"):
        return assignment
    identity = Identity(role, number, assignment.name, assignment.attempt)
    child = look.children.get(identity)
    if child is None:
        trouble = look.troubles.get(workload_name(look.training.name, identity))
        return assignment if trouble is None else _waiting(assignment, trouble)
    if child.state is ChildState.SUCCEEDED:
        result = child.result or {}
        useless = role is not Role.EVALUATE and results.digest(result) is None
        if role in _NEEDS_RESULT and (not result or useless):
            lost = Trouble(reason="ResultLost", message="the pod's result was lost; tried again")
            return retry.after_failure(assignment, Failure.FREE, lost, budget, look.now)
        return results.reported(assignment, result)
    if child.state is ChildState.FAILED:
        failure = child.failure or Failure.COUNTED
        trouble = child.trouble or Trouble(reason="Failed", message="")
        return retry.after_failure(assignment, failure, trouble, budget, look.now)
    if assignment.state == "Suspended":
        return assignment
    if child.state is ChildState.READY:
        if assignment.state == "Running":
            return assignment
        update = {"state": "Running", "started_at": look.now, "reason": "", "message": ""}
        return assignment.model_copy(update=update)
    return assignment if child.trouble is None else _waiting(assignment, child.trouble)


def _waiting(assignment: Assignment, trouble: Trouble) -> Assignment:
    """Not ready, and it is known why; a participant that was running keeps its clock."""
    if assignment.state != "Invited":
        return assignment
    return assignment.model_copy(
        update={"reason": trouble.reason, "message": trouble.message[:2048]}
    )


def _with_verdicts(look: Look, number: int, status: RoundStatus) -> RoundStatus:
    """After an aggregation: publish; or, if it says so, decide again from its verdicts."""
    aggregation = status.aggregation
    assert aggregation is not None, "asked only while aggregating"
    child = look.children.get(Identity(Role.AGGREGATE, number, "", aggregation.attempt))
    result = (child.result if child is not None else None) or {}
    rejected = results.rejections(status.candidates, result)
    if aggregation.state == "Retrying" and aggregation.failure == Failure.VERDICTS and rejected:
        participants = [_rejected(p, rejected) for p in status.participants]
        return status.model_copy(update={"phase": "Training", "participants": participants})
    if aggregation.state != "Reported":
        return status
    folder = contract.global_folder(number, aggregation.attempt)
    return status.model_copy(
        update={
            "phase": "Published",
            "published_at": look.now,
            "participants": _weighted(look.training, status, rejected, result),
            "global_model": _model(look.training, number, folder, aggregation.digest),
            "measured": results.measured(result),
        }
    )


def _rejected(assignment: Assignment, rejected: Mapping[str, Trouble]) -> Assignment:
    trouble = rejected.get(assignment.name)
    if trouble is None or assignment.state != "Reported":
        return assignment
    return assignment.model_copy(
        update={"state": "Rejected", "reason": trouble.reason, "message": trouble.message}
    )


def _weighted(
    training: Training,
    status: RoundStatus,
    rejected: Mapping[str, Trouble],
    result: Mapping[str, object],
) -> list[Assignment]:
    """The candidates as accepted, with their share n_k/n; the others as they ended."""
    candidates = {c.name for c in status.candidates}
    by, maximum = training.spec.weight.by, training.spec.weight.max
    settled = []
    for p in status.participants:
        if p.name in candidates and p.state == "Reported":
            p = _rejected(results.filled(p, result), rejected)
            if p.state == "Reported":
                p = p.model_copy(update={"state": "Accepted"})
        settled.append(p)
    weights = {
        p.name: contract.weight_of(p.samples or 0, by, maximum)
        for p in settled
        if p.state == "Accepted"
    }
    total = sum(weights.values())
    return [
        p.model_copy(update={"weight": weights[p.name] / total})
        if p.name in weights and total
        else p
        for p in settled
    ]


def _model(training: Training, number: int, folder: str, digest: str | None) -> GlobalModel:
    assert digest is not None, "a result without a digest was no success"
    root = contract.training_folder(training.name, training.uid)
    return GlobalModel(round=number, path=f"{root}/{folder}/{contract.MODEL_FILE}", digest=digest)


# The life of a round -----------------------------------------------------------------------------


def _advanced(look: Look, record: Record) -> Record:
    """The record after everything that needs no more evidence."""
    steps = {
        "Preparing": _preparing,
        "Initialising": _initialising,
        "Training": _training,
        "Aggregating": _aggregating,
    }
    while record.status.phase in steps:
        before = record.status.phase
        status = steps[before](look, record)
        record = record.model_copy(update={"status": status})
        if status.phase == before:
            break
    return _measured(look, record)


def _preparing(look: Look, record: Record) -> RoundStatus:
    status = record.status
    if status.prepare is not None and status.prepare.state != "Reported":
        return status.model_copy(update={"prepare": _kept_going(look, status.prepare)})
    return status.model_copy(update={"phase": "Training" if record.spec.round else "Initialising"})


def _initialising(look: Look, record: Record) -> RoundStatus:
    status, spec = record.status, look.training.spec
    init = status.init or Assignment(name=spec.participants[0].name)
    if init.state == "Reported":
        folder = contract.global_folder(record.spec.round, init.attempt)
        model = _model(look.training, record.spec.round, folder, init.digest)
        update = {"phase": "Published", "published_at": look.now, "global_model": model}
        return status.model_copy(update=update)
    if spec.participant(init.name) is None:
        init = retry.invited_again(init).model_copy(update={"name": spec.participants[0].name})
    return status.model_copy(update={"init": _kept_going(look, init)})


def _training(look: Look, record: Record) -> RoundStatus:
    status, spec = record.status, look.training.spec
    participants = [_kept_going(look, _dropped(look, p)) for p in status.participants]
    enough = sum(p.state == "Reported" for p in participants) >= spec.quorum.minimum
    # While suspended no clock runs; on resume it starts anew.
    quorum_at = (status.quorum_at or look.now) if enough and not spec.suspend else None
    if not spec.suspend:
        participants = [_in_time(look, p, quorum_at) for p in participants]
    update: dict[str, object] = {"participants": participants, "quorum_at": quorum_at}
    stands = quorum.standing(participants, spec.quorum)
    if stands is Standing.MISSED:
        update |= _missed(look, status, participants)
    elif stands is Standing.CLOSED and not spec.suspend:
        update |= {
            "phase": "Aggregating",
            "not_before": None,
            "candidates": sorted(
                (
                    Candidate(name=p.name, attempt=p.attempt)
                    for p in participants
                    if p.state == "Reported"
                ),
                key=lambda candidate: candidate.name,
            ),
            "aggregation": (
                Assignment() if status.aggregation is None else retry.next_attempt(status.aggregation)
            ),
        }
    else:
        update["not_before"] = None
    return status.model_copy(update=update)


def _missed(
    look: Look, status: RoundStatus, participants: Sequence[Assignment]
) -> dict[str, object]:
    """What was reported is kept; after a back-off the others are invited again."""
    spec = look.training.spec
    again = [
        p
        for p in participants
        if p.state in ("Failed", "Late", "Rejected", "Dropped") and spec.participant(p.name)
    ]
    fails = spec.quorum.on_miss == "Fail" or quorum.nothing_can_cure(participants) is not None
    if fails or not again or spec.suspend:
        return {}
    if status.not_before is None:
        misses = status.misses + 1
        wait = timestamp(look.now + retry.backoff(misses))
        return {"misses": misses, "not_before": wait}
    if not look.is_past(status.not_before):
        return {}
    names = {p.name for p in again}
    return {
        "not_before": None,
        "participants": [retry.invited_again(p) if p.name in names else p for p in participants],
    }


def _aggregating(look: Look, record: Record) -> RoundStatus:
    status = record.status
    assert status.aggregation is not None, "candidates and aggregation are fixed together"
    # An aggregation that runs finishes first: suspend only keeps the next attempt back.
    aggregation = _retried(look, status.aggregation)
    return status.model_copy(update={"aggregation": aggregation})


def _measured(look: Look, record: Record) -> Record:
    """A published round with its evaluation: begun if due, gone on with, and summed up."""
    status, spec = record.status, look.training.spec
    if status.phase != "Published":
        return record
    evaluations = list(status.evaluation)
    if not evaluations and evaluation.is_due(spec, record.spec.round):
        evaluations = evaluation.evaluators(spec)
    evaluations = [_kept_going(look, _dropped(look, e)) for e in evaluations]
    metrics = {} if any(e.is_open for e in evaluations) else results.mean(evaluations)
    status = status.model_copy(update={"evaluation": evaluations, "metrics": metrics})
    return record.model_copy(update={"status": status})


# The life of an assignment -----------------------------------------------------------------------


def _kept_going(look: Look, assignment: Assignment) -> Assignment:
    """Taken away by suspend, given back by resume, tried again when its back-off is over."""
    if look.training.spec.suspend:
        if assignment.is_live:
            return assignment.model_copy(update={"state": "Suspended", "started_at": None})
        return assignment
    if assignment.state == "Suspended":
        return retry.next_attempt(assignment)
    return _retried(look, assignment)


def _retried(look: Look, assignment: Assignment) -> Assignment:
    waiting = assignment.state == "Retrying" and not look.training.spec.suspend
    if waiting and look.is_past(assignment.not_before):
        return retry.next_attempt(assignment)
    return assignment


def _dropped(look: Look, assignment: Assignment) -> Assignment:
    """Its participant was removed from the spec; what it had reported still counts."""
    if not assignment.is_open or look.training.spec.participant(assignment.name) is not None:
        return assignment
    update = {"state": "Dropped", "reason": "Removed", "message": "removed from the spec"}
    return assignment.model_copy(update=update)


def _in_time(look: Look, assignment: Assignment, quorum_at: datetime | None) -> Assignment:
    due = deadline.due(assignment, look.training.spec.quorum, quorum_at)
    if due is None or look.now < due:
        return assignment
    text = f"not reported within quorum.deadline ({look.training.spec.quorum.deadline})"
    return assignment.model_copy(
        update={"state": "Late", "reason": "Late", "message": text, "not_before": None}
    )


def _abandoned(record: Record) -> Record:
    """The training is over: nobody waits for what is still open."""

    def ended(assignment: Assignment) -> Assignment:
        update = {"state": "Dropped", "reason": "TrainingOver", "message": "the training is over"}
        return assignment.model_copy(update=update) if assignment.is_open else assignment

    status = record.status
    update = {
        "participants": [ended(p) for p in status.participants],
        "evaluation": [ended(e) for e in status.evaluation],
    }
    return record.model_copy(update={"status": status.model_copy(update=update)})


# What follows from the records -------------------------------------------------------------------


def _assignments(status: RoundStatus) -> Iterator[tuple[Role, Assignment]]:
    for role, one in (
        (Role.PREPARE, status.prepare if status.phase == "Preparing" else None),
        (Role.INIT, status.init if status.phase == "Initialising" else None),
        (Role.AGGREGATE, status.aggregation if status.phase == "Aggregating" else None),
    ):
        if one is not None:
            yield role, one
    if status.phase == "Training":
        yield from ((Role.TRAIN, p) for p in status.participants)
    yield from ((Role.EVALUATE, e) for e in status.evaluation)


def _live(
    rounds: Mapping[int, Record],
) -> Iterator[tuple[Identity, tuple[Record, Assignment]]]:
    """Everything that ought to have a child now."""
    for number, record in sorted(rounds.items()):
        for role, assignment in _assignments(record.status):
            if assignment.is_live:
                identity = Identity(role, number, assignment.name, assignment.attempt)
                yield identity, (record, assignment)


def _superfluous(
    look: Look, live: frozenset[Identity], current: int | None = None
) -> tuple[Child, ...]:
    """Unfinished children nobody waits for; finished ones are evidence, kept for two rounds."""
    return tuple(
        child
        for child in look.children.values()
        if not child.deleting
        and (
            (current is not None and child.identity.round <= current - 2)
            if child.finished
            else child.identity not in live
        )
    )


def _beyond_history(training: Training, changed: Sequence[Record]) -> tuple[str, ...]:
    begun = [record.spec.round for record in changed if not record.resource_version]
    oldest = [number - training.spec.history for number in begun]
    return tuple(record_name(training.name, number) for number in oldest if number >= 0)


def _wake_at(look: Look, rounds: Mapping[int, Record]) -> datetime | None:
    """The earliest moment at which something happens that no event tells of."""
    spec, moments = look.training.spec, []
    for number, record in rounds.items():
        status = record.status
        if not spec.suspend and status.not_before is not None:
            moments.append(status.not_before)
        for role, assignment in _assignments(status):
            if assignment.state == "Retrying" and assignment.not_before and not spec.suspend:
                moments.append(assignment.not_before)
            if assignment.state == "Invited":
                identity = Identity(role, number, assignment.name, assignment.attempt)
                child = look.children.get(identity)
                overdue = child.created_at + OVERDUE if child is not None else look.now + OVERDUE
                moments.append(overdue if overdue > look.now else look.now + OVERDUE)
            if role is Role.TRAIN and not spec.suspend:
                due = deadline.due(assignment, spec.quorum, status.quorum_at)
                moments.extend([due] if due is not None else [])
    return min(moments, default=None)
