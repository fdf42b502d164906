"""What becomes of a round that cannot reach its quorum any more."""

from collections.abc import Sequence

from fedoperator.api.base import timestamp
from fedoperator.api.round import Assignment, Record
from fedoperator.rounds import preparation, quarantine, quorum, retry, selection
from fedoperator.rounds.look import Look


def invited_others(
    look: Look, record: Record, participants: Sequence[Assignment]
) -> dict[str, object]:
    """What was reported is kept; after a back-off others are invited.

    Those that failed once more, and as many that were not invited before as are missing: a round
    must not hang on one site whose data are broken while others stand idle.
    """
    spec, status = look.training.spec, record.status
    again = {p.name for p in participants if p.is_lost and spec.participant(p.name)}
    strangers = _strangers(look, record, participants)
    broken = quorum.nothing_can_cure(participants, spec.participants)
    fails = spec.quorum.on_miss == "Fail" or broken is not None
    if fails or spec.suspend:
        return {}
    if not (again or strangers):
        return {"not_before": None}
    if status.not_before is None:
        misses = status.misses + 1
        wait = timestamp(look.now + retry.backoff(misses))
        return {"misses": misses, "not_before": wait}
    if not look.is_past(status.not_before):
        return {}
    if strangers and not preparation.is_prepared(look, status, look.training.generation):
        return preparation.asked_for(look, status)
    old = [retry.invited_again(p) if p.name in again else p for p in participants]
    new = [Assignment(name=name) for name in strangers]
    return {"not_before": None, "participants": [*old, *new]}


def _strangers(look: Look, record: Record, participants: Sequence[Assignment]) -> list[str]:
    """As many not yet invited as the quorum lacks, in the order of the seed; those in quarantine
    only if all others are there already."""
    spec, number = look.training.spec, record.spec.round
    there = {p.name for p in participants}
    others = [p.name for p in spec.participants if p.name not in there]
    hopeful = sum(p.is_open or p.state == "Reported" for p in participants)
    ranked = selection.order(others, spec.selection, number)
    ranked = quarantine.by_need(ranked, record.spec.quarantined, number)
    return ranked[: max(0, spec.quorum.minimum - hopeful)]
