"""What a failed attempt costs and when the next one starts."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from fedoperator.api.base import timestamp
from fedoperator.api.round import Assignment
from fedoperator.rounds.observed import Failure, Trouble

A = TypeVar("A", bound=Assignment)
FATAL = frozenset({Failure.CONTRACT, Failure.DATA})
_FIRST = timedelta(seconds=2)
LONGEST = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much failure one assignment may show. retries None: no end, only back-off."""

    retries: int | None
    fatal: frozenset[Failure] = FATAL


def backoff(times: int) -> timedelta:
    """2 s, 4 s, 8 s ... 5 minutes for the first, second, third ... time in a row."""
    return min(_FIRST * (1 << min(max(times, 1) - 1, 20)), LONGEST)


def after_failure(
    assignment: A, failure: Failure, trouble: Trouble, budget: Budget, now: datetime
) -> A:
    """The assignment after its current attempt failed: retrying later, or failed for good."""
    counted = assignment.failures + (failure is Failure.COUNTED)
    spent = budget.retries is not None and counted > budget.retries
    final = failure in budget.fatal or (failure is Failure.COUNTED and spent)
    return assignment.model_copy(
        update={
            "state": "Failed" if final else "Retrying",
            "failures": counted,
            "failure": failure.value,
            "last_failure": f"{trouble.reason}: {trouble.message}"[:2048],
            "reason": trouble.reason,
            "message": trouble.message[:2048],
            "not_before": None if final else timestamp(now + backoff(assignment.attempt)),
        }
    )


def next_attempt(assignment: A) -> A:
    """The same piece of work, tried again."""
    return assignment.model_copy(
        update={
            "state": "Invited",
            "attempt": assignment.attempt + 1,
            "reason": "",
            "message": "",
            "started_at": None,
            "not_before": None,
            "samples": None,
            "digest": None,
            "metrics": {},
        }
    )


def invited_again(assignment: A) -> A:
    """After a missed quorum: a new attempt with a new budget."""
    return next_attempt(assignment).model_copy(update={"failures": 0})
