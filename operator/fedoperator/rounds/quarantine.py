"""Who is left out of a round for having lost too many before it.

A participant loses a round that it was invited to by its own fault: its attempts failed for good,
its update was rejected, or its pods ran past the deadline. What is nobody's fault (a disruption, a
queue, a full exchange) neither counts nor ends a row. Each record says in its spec how everybody
stands at its beginning, so that the next one follows from it alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedoperator.api.round import Assignment, Record
from fedoperator.api.training import TrainingSpec


@dataclass(frozen=True, slots=True)
class Past:
    """How participants stand at the beginning of a round; those without a blemish are in neither.

    losing: rounds lost in a row. quarantined: the last round to be left out of; who is there stays
    there until an update of it is accepted, and needs to lose only one more to be left out anew.
    """

    losing: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)


def past(spec: TrainingSpec, before: Record | None) -> Past:
    """How everybody stands after a round that is over; None: nothing is known of one."""
    policy, names = spec.quarantine, {p.name for p in spec.participants}
    if before is None or policy.after == 0:
        return Past()
    number = before.spec.round
    losing, quarantined = dict(before.spec.losing), dict(before.spec.quarantined)
    for p in before.status.participants:
        if p.state == "Accepted":
            losing.pop(p.name, None)
            quarantined.pop(p.name, None)
        elif by_own_fault(p):
            lost = losing.pop(p.name, 0) + 1
            if lost >= policy.after or p.name in quarantined:
                quarantined[p.name] = number + policy.rounds
            else:
                losing[p.name] = lost
    # Who was removed comes back without a past, and a shorter quarantine holds for all.
    until = number + policy.rounds
    return Past(
        losing={name: lost for name, lost in sorted(losing.items()) if name in names},
        quarantined={n: min(q, until) for n, q in sorted(quarantined.items()) if n in names},
    )


def by_own_fault(assignment: Assignment) -> bool:
    """Whether a participant lost a round that is over, by its own fault."""
    late = assignment.state == "Late" and assignment.failure != "Free"
    return late or assignment.state in ("Failed", "Rejected")


def is_out(quarantined: Mapping[str, int], name: str, number: int) -> bool:
    return quarantined.get(name, 0) >= number


def by_need(ranked: Sequence[str], quarantined: Mapping[str, int], number: int) -> list[str]:
    """The same names, those in quarantine behind all others, the longest quarantined first."""
    return sorted(
        ranked, key=lambda name: quarantined[name] if is_out(quarantined, name, number) else 0
    )


def left_out(record: Record) -> dict[str, int]:
    """Who is in quarantine and was not released → the last round that it is left out of."""
    invited = {p.name for p in record.status.participants} | set(record.spec.invited)
    quarantined, number = record.spec.quarantined, record.spec.round
    return {
        name: until
        for name, until in quarantined.items()
        if is_out(quarantined, name, number) and name not in invited
    }


def released(record: Record) -> list[str]:
    """Who would be in quarantine, and was invited because too few were left."""
    quarantined, number = record.spec.quarantined, record.spec.round
    return [p.name for p in record.status.participants if is_out(quarantined, p.name, number)]
