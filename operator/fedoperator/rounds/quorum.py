"""When a round closes, and when it can no longer succeed."""

import enum
from collections.abc import Sequence

from fedoperator.api.round import Assignment
from fedoperator.api.training import Participant, Quorum


class Standing(enum.Enum):
    """How a round's participants stand."""

    OPEN = "some may still report"
    CLOSED = "all are settled and enough have reported"
    MISSED = "too few can still report"


def standing(participants: Sequence[Assignment], quorum: Quorum) -> Standing:
    """Closed needs everyone settled (late is settled); missed is said as soon as it is certain."""
    reported = sum(p.state == "Reported" for p in participants)
    still_open = sum(p.is_open for p in participants)
    if reported + still_open < quorum.minimum:
        return Standing.MISSED
    return Standing.OPEN if still_open else Standing.CLOSED


def nothing_can_cure(
    invited: Sequence[Assignment], participants: Sequence[Participant]
) -> Assignment | None:
    """One whose script broke the contract, if that is why *every* participant there is failed."""
    broken = {p.name: p for p in invited if p.state == "Failed" and p.failure == "Contract"}
    if not all(participant.name in broken for participant in participants):
        return None
    return next(iter(broken.values()), None)
