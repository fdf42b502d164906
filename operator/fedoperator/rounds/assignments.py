"""The life of an assignment between its attempts: suspended, resumed, retried, dropped, late."""

from datetime import datetime
from typing import TypeVar

from fedoperator.api.round import Assignment
from fedoperator.rounds import deadline, retry
from fedoperator.rounds.look import Look

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
    text = f"not reported within quorum.deadline ({look.training.spec.quorum.deadline})"
    return assignment.model_copy(
        update={"state": "Late", "reason": "Late", "message": text, "not_before": None}
    )
