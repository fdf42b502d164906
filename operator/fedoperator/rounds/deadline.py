"""When a participant is late.

Its clock starts when all pods of its attempt are ready, so that time in a queue, without quota or
unschedulable does not count. One that never got ready holds up a round that has its quorum for one
length of the deadline at most.
"""

from datetime import datetime

from fedoperator.api.base import seconds
from fedoperator.api.round import Assignment
from fedoperator.api.training import Quorum


def due(assignment: Assignment, quorum: Quorum, quorum_at: datetime | None) -> datetime | None:
    """The moment at which an open assignment becomes late; None: not as things stand."""
    if quorum.deadline is None or not assignment.is_open:
        return None
    start = assignment.started_at if assignment.state == "Running" else quorum_at
    return None if start is None else start + seconds(quorum.deadline)
