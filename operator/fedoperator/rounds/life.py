"""The life of a round: begun, prepared, initialised or trained, aggregated, published, measured."""

from typing import TypeVar

from fedoperator.api.round import Assignment, Candidate, Record, RoundSpec, RoundStatus, record_name
from fedoperator.rounds import (
    assignments,
    bounds,
    evaluation,
    evidence,
    missed,
    personalization,
    preparation,
    quarantine,
    quorum,
    results,
    retry,
    selection,
    spread,
    stop,
    summary,
)
from fedoperator.rounds.look import Look
from fedoperator.rounds.quorum import Standing
from fedtrain import contract

A = TypeVar("A", bound=Assignment)


def begun(look: Look, number: int, before: Record | None = None) -> Record:
    """The record of a round that nobody has begun yet. before: the round before it, if known."""
    spec, past = look.training.spec, quarantine.past(look.training.spec, before)
    invited: tuple[str, ...] = (spec.participants[0].name,)
    if number > 0:
        invited = selection.select(
            [p.name for p in spec.participants],
            spec.selection,
            number,
            at_least=spec.quorum.minimum,
            quarantined=past.quarantined,
        )
    record = Record(
        name=record_name(look.training.name, number),
        spec=RoundSpec(
            training=look.training.name,
            round=number,
            generation=look.training.generation,
            invited=list(invited),
            losing=dict(past.losing),
            quarantined=dict(past.quarantined),
        ),
    )
    return filled_in(look, record)


def lost_or_first(look: Look) -> Record:
    """The round to go on with when there is no record: the first; or one that was deleted by hand.

    Of a round whose model counts already, a record that says no more than that.
    """
    status = look.training.status
    record = begun(look, status.round)
    if status.global_model is None or status.global_model.round < status.round:
        return record
    published = {
        "phase": "Published",
        "published_at": look.now,
        "global_model": status.global_model,
        "participants": [],
    }
    return record.model_copy(update={"status": record.status.model_copy(update=published)})


def filled_in(look: Look, record: Record) -> Record:
    """A record whose first status was never written, because of a crash or because it is new."""
    if record.status.started_at is not None:
        return record
    status = RoundStatus(
        started_at=look.now,
        participants=[Assignment(name=n) for n in record.spec.invited if record.spec.round > 0],
    )
    return record.model_copy(update={"status": status})


def next_may_begin(look: Look, current: Record, previous: Record | None) -> bool:
    """The evaluation of a model runs beside the next round, never beside the one after it."""
    spec = look.training.spec
    if current.status.phase != "Published" or spec.suspend or stop.is_last(look.training, current):
        return False
    if previous is not None and _outstanding(look, previous):
        return False
    return spec.stop is None or not _outstanding(look, current)


def _outstanding(look: Look, record: Record) -> bool:
    status = record.status
    return evaluation.outstanding(look.training.spec, record.spec.round, status.evaluation)


def advanced(look: Look, record: Record, previous: Record | None) -> Record:
    """The record after everything that needs no more evidence."""
    steps = {
        "Preparing": _preparing,
        "Initialising": _initialising,
        "Training": _training,
        "Aggregating": _aggregating,
    }
    record = _with_hub(look, record, previous)
    while record.status.phase in steps:
        before = record.status.phase
        status = steps[before](look, record)
        record = record.model_copy(update={"status": status})
        if status.phase == before:
            break
    return measured(look, record)


def _with_hub(look: Look, record: Record, previous: Record | None) -> Record:
    """Where pods stay nothing happens without their hub: it comes back while work is left."""
    rounds = [record] if previous is None else [previous, record]
    if preparation.lacks_hub(look, record.status) and any(_has_work_left(look, r) for r in rounds):
        return with_status(record, preparation.asked_for(look, record.status))
    return record


def _has_work_left(look: Look, record: Record) -> bool:
    if record.status.phase != "Published" or _outstanding(look, record):
        return True
    return personalization.outstanding(look.training, record)


def _preparing(look: Look, record: Record) -> RoundStatus:
    status = record.status
    if not preparation.is_prepared(look, status, record.spec.generation):
        return status.model_copy(update=preparation.asked_for(look, status))
    return status.model_copy(update={"phase": "Training" if record.spec.round else "Initialising"})


def _initialising(look: Look, record: Record) -> RoundStatus:
    status, spec = record.status, look.training.spec
    # An import is the operator's own work; the script's initial model is the first participant's.
    name = "" if spec.model.claim_name is not None else spec.participants[0].name
    init = status.init or Assignment(name=name)
    if init.state == "Reported":
        folder = contract.global_folder(record.spec.round, init.attempt)
        said = spec.model.base.digest if spec.model.base is not None else None
        model = evidence.global_model(
            look.training,
            record.spec.round,
            folder,
            init.digest,
            base_model=init.base_model or said,
        )
        update = {"phase": "Published", "published_at": look.now, "global_model": model}
        return status.model_copy(update=update)
    if init.name and spec.participant(init.name) is None:
        init = retry.invited_again(init).model_copy(update={"name": name})
    return status.model_copy(update={"init": assignments.kept_going(look, init)})


def _training(look: Look, record: Record) -> RoundStatus:
    status, spec = record.status, look.training.spec
    participants = [
        assignments.kept_going(look, assignments.dropped(look, p)) for p in status.participants
    ]
    enough = sum(p.state == "Reported" for p in participants) >= spec.quorum.minimum
    # While suspended no clock runs; on resume it starts anew.
    quorum_at = look.since(status.quorum_at) if enough and not spec.suspend else None
    if not spec.suspend:
        participants = [assignments.in_time(look, p, quorum_at) for p in participants]
    update: dict[str, object] = {"participants": participants, "quorum_at": quorum_at}
    stands = quorum.standing(participants, spec.quorum)
    if stands is Standing.MISSED:
        update |= missed.invited_others(look, record, participants)
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
                Assignment()
                if status.aggregation is None
                else retry.next_attempt(status.aggregation)
            ),
        }
    else:
        update["not_before"] = None
    return status.model_copy(update=update)


def _aggregating(look: Look, record: Record) -> RoundStatus:
    status = record.status
    assert status.aggregation is not None, "candidates and aggregation are fixed together"
    # An aggregation that runs finishes first: suspend only keeps the next attempt back.
    aggregation = assignments.retried(look, status.aggregation)
    return status.model_copy(update={"aggregation": aggregation})


def measured(look: Look, record: Record) -> Record:
    """A published round with its evaluation: begun if due, gone on with, and summed up."""
    spec = look.training.spec
    if record.status.phase != "Published":
        return record
    # Cut first: what is summed up is what the record holds, at this look and at every later one.
    status = bounds.bounded(spec, record).status
    evaluations = list(status.evaluation)
    update: dict[str, object] = {}
    if not evaluations and evaluation.is_due(spec, record.spec.round) and not spec.suspend:
        if preparation.is_prepared(look, status, look.training.generation):
            evaluations = evaluation.evaluators(spec)
        else:
            update |= preparation.asked_for(look, status)
    evaluations = [assignments.kept_going(look, assignments.dropped(look, e)) for e in evaluations]
    # As for training: no clock runs while suspended, and nobody holds up the others for ever.
    waits = any(e.is_open for e in evaluations) and not spec.suspend
    since = look.since(status.evaluating_since) if waits else None
    if waits:
        evaluations = [assignments.in_time(look, e, since) for e in evaluations]
    done = not any(e.is_open for e in evaluations)
    update["evaluating_since"] = None if done else since
    metrics = status.metrics or (results.mean(spec, evaluations) if done else {})
    score = summary.score(look.training, metrics)
    update |= {
        "evaluation": evaluations,
        "metrics": metrics,
        "spread": status.spread or (spread.of(spec, evaluations) if done else {}),
        "accepted": summary.accepted(status.participants),
        "shares": summary.shares(status.participants),
        "score": score,
        "worst": spread.worst(spec, score, evaluations),
    }
    return _personalized(look, with_status(record, update))


def _personalized(look: Look, record: Record) -> Record:
    """The last round with its fine-tuning: begun if due, gone on with, and summed up."""
    if look.training.spec.fine_tune is None:
        return record
    prepared = preparation.is_prepared(look, record.status, look.training.generation)
    update = personalization.gone_on(look, record, prepared=prepared)
    if personalization.begins(look, record) and not prepared:
        update |= preparation.asked_for(look, record.status)
    return with_status(record, update)


def with_status(record: Record, update: dict[str, object]) -> Record:
    return record.model_copy(update={"status": record.status.model_copy(update=update)})


def abandoned(record: Record) -> Record:
    """The training is over: nobody waits for what is still open."""

    def ended(assignment: A) -> A:
        update = {"state": "Dropped", "reason": "TrainingOver", "message": "the training is over"}
        return assignment.model_copy(update=update) if assignment.is_open else assignment

    status = record.status
    update = {
        "participants": [ended(p) for p in status.participants],
        "evaluation": [ended(e) for e in status.evaluation],
        "personalization": [ended(t) for t in status.personalization],
    }
    return record.model_copy(update={"status": status.model_copy(update=update)})
