"""The life of an assignment between its attempts: suspended, resumed, retried, dropped, late."""

from datetime import datetime
from typing import TypeVar

from fedoperator.api.round import Assignment
from fedoperator.rounds import deadline, retry
from fedoperator.rounds.look import Look
from fedoperator.rounds.observed import Failure

A = TypeVar("A", bound=Assignment)


def kept_going(look: Look, assignment: A) -> A:
    """Taken away by suspend, given back by resume, tried again when its back-off is over."""
    if look.training.spec.suspend:
        if assignment.is_live:
            return assignment.model_copy(update={"state": "Suspended", "started_at": None})
        return assignment
    if assignment.state == "Suspended":
        return retry.next_attempt(assignment)
    return retried(look, assignment)


def retried(look: Look, assignment: A) -> A:
    waiting = assignment.state == "Retrying" and not look.training.spec.suspend
    if waiting and look.is_past(assignment.not_before):
        return retry.next_attempt(assignment)
    return assignment


def dropped(look: Look, assignment: A) -> A:
    """Its participant was removed from the spec; what it had reported still counts."""
    if not assignment.is_open or look.training.spec.site(assignment.name) is not None:
        return assignment
    update = {"state": "Dropped", "reason": "Removed", "message": "removed from the spec"}
    return assignment.model_copy(update=update)


def in_time(look: Look, assignment: A, quorum_at: datetime | None) -> A:
    due = deadline.due(assignment, look.training.spec.quorum, quorum_at)
    if due is None or look.now < due:
        return assignment
    ran, patience = assignment.state == "Running", look.training.spec.quorum.deadline
    text = f"not reported within quorum.deadline ({patience})"
    if not ran:  # time in a queue is nobody's fault, and what it waited for is worth knowing
        text = f"not running within quorum.deadline ({patience}) after the quorum had reported"
        text += f": {assignment.reason}: {assignment.message}" if assignment.reason else ""
    update = {"state": "Late", "reason": "Late", "message": text[:2048], "not_before": None}
    if assignment.state != "Retrying":  # else it is late of what its last attempt failed of
        update["failure"] = (Failure.COUNTED if ran else Failure.FREE).value
    return assignment.model_copy(update=update)
