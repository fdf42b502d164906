"""What children left behind, read into the record before anything else is decided.

So that however long the operator was away, an update that was reported counts, and no deadline,
suspension or retry comes before it.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Assignment, Record, RoundStatus
from fedoperator.api.training import Training
from fedoperator.rounds import network, results, retry
from fedoperator.rounds.look import Look
from fedoperator.rounds.observed import ChildState, Failure, Identity, Trouble
from fedoperator.rounds.retry import Budget
from fedoperator.rounds.workloads import workload_name
from fedtrain import contract
from fedtrain.contract import Role

A = TypeVar("A", bound=Assignment)


def harvested(look: Look, record: Record) -> Record:
    """The record with the outcome of every child that is over, before anything else is decided."""
    status, number = record.status, record.spec.round
    retries = look.training.spec.retries

    def settle(role: Role, assignment: Assignment | None, budget: Budget) -> Assignment | None:
        return None if assignment is None else _settled(look, role, number, assignment, budget)

    def settle_all(role: Role, assignments: Sequence[A]) -> list[A]:
        return [_settled(look, role, number, a, Budget(retries)) for a in assignments]

    endless = Budget(None, fatal=frozenset())
    update = {
        "prepare": settle(Role.PREPARE, status.prepare, endless),
        "init": settle(Role.INIT, status.init, Budget(None, fatal=frozenset({Failure.CONTRACT}))),
        "participants": settle_all(Role.TRAIN, status.participants),
        "evaluation": settle_all(Role.EVALUATE, status.evaluation),
        "personalization": settle_all(Role.PERSONALIZE, status.personalization),
    }
    status = status.model_copy(update=update)
    if status.phase == "Aggregating" and status.aggregation is not None:
        aggregation = settle(Role.AGGREGATE, status.aggregation, endless)
        status = status.model_copy(update={"aggregation": aggregation})
        status = _with_verdicts(look, number, status)
    return record.model_copy(update={"status": status})


_MEASURES = frozenset({Role.EVALUATE, Role.PERSONALIZE})
_NEEDS_RESULT = frozenset({Role.INIT, Role.AGGREGATE}) | _MEASURES
"""Their digest or metrics come in the message alone; a participant's are read again from files."""


def _settled(look: Look, role: Role, number: int, assignment: A, budget: Budget) -> A:
    if assignment.state not in ("Invited", "Running", "Suspended"):
        return assignment
    identity = Identity(role, number, assignment.name, assignment.attempt)
    child = look.children.get(identity)
    if child is None:
        name = workload_name(look.training.name, identity)
        trouble = look.trouble_of(name, assignment.name)
        return assignment if trouble is None else _waiting(assignment, trouble)
    if child.state is ChildState.SUCCEEDED:
        result = child.result or {}
        useless = role not in _MEASURES and results.digest(result) is None
        if role in _NEEDS_RESULT and (not result or useless):
            lost = Trouble(reason="ResultLost", message="the pod's result was lost; tried again")
            # An evaluator that never tells anything must not hold up the federation for ever.
            cost = Failure.COUNTED if role in _MEASURES else Failure.FREE
            return retry.after_failure(assignment, cost, lost, budget, look.now)
        return results.reported(assignment, result)
    if child.state is ChildState.FAILED:
        failure = child.failure or Failure.COUNTED
        trouble = child.trouble or Trouble(reason="Failed", message="")
        if assignment.name:
            trouble = network.explained(look.training, trouble)
        return retry.after_failure(assignment, failure, trouble, budget, look.now)
    if assignment.state == "Suspended":
        return assignment
    if child.queued:
        # Evicted, it begins anew when it is admitted again: the same attempt, a clock from zero.
        waits = assignment.model_copy(update={"state": "Invited", "started_at": None})
        return _waiting(waits, child.trouble or Trouble(reason="Queued", message=""))
    if child.state is ChildState.READY:
        running = assignment.state == "Running"
        since = look.since(assignment.started_at if running else None)
        update = {"state": "Running", "started_at": since, "reason": "", "message": ""}
        return assignment.model_copy(update=update)
    return _waiting(assignment, child.trouble or Trouble(reason="", message=""))


def _waiting(assignment: A, trouble: Trouble) -> A:
    """Not ready, and why as far as it is known; one that was running keeps its clock."""
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
    file = contract.MODEL_INDEX_FILE if child is not None and child.nodes > 1 else None
    before = look.training.status.global_model
    model = global_model(
        look.training,
        number,
        folder,
        aggregation.digest,
        file=file,
        base_model=None if before is None else before.base_model,
    )
    return status.model_copy(
        update={
            "phase": "Published",
            "published_at": look.now,
            "participants": _weighted(look.training, status, rejected, result),
            "global_model": model,
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
    # Candidates are in order of name, and so are the aggregation's lists.
    accepted = sorted((p for p in settled if p.state == "Accepted"), key=lambda p: p.name)
    compared = {p.name: p for p in results.compared(accepted, result)}
    settled = [compared.get(p.name, p) for p in settled]
    return [
        p.model_copy(update={"weight": weights[p.name] / total})
        if p.name in weights and total
        else p
        for p in settled
    ]


def global_model(
    training: Training,
    number: int,
    folder: str,
    digest: str | None,
    *,
    file: str | None = None,
    base_model: str | None = None,
) -> GlobalModel:
    """What was published in the folder. file: its name there, if not that of a single file.
    base_model: the digest of the frozen one."""
    assert digest is not None, "a result without a digest was no success"
    root = contract.training_folder(training.name, training.uid)
    path = f"{root}/{folder}/{file or contract.MODEL_FILE}"
    return GlobalModel(round=number, path=path, digest=digest, base_model=base_model)
