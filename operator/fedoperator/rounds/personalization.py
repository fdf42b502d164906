"""After the last round: every participant trains the global model once more, for itself alone.

It begins once the last model is published and measured, so that it is certain that it is the last.
Nobody's failure in it fails the training, and nobody holds it up longer than the deadline.
"""

from fedoperator.api.round import FineTuned, Record
from fedoperator.api.training import Training
from fedoperator.rounds import assignments, evaluation, spread, stop
from fedoperator.rounds.look import Look


def outstanding(training: Training, record: Record) -> bool:
    """Whether this published round is the last one and somebody may still train for itself."""
    if not _is_due(training, record):
        return False
    tuned = record.status.personalization
    return not tuned or any(t.is_open for t in tuned)


def _is_due(training: Training, record: Record) -> bool:
    spec, status = training.spec, record.status
    return (
        spec.fine_tune is not None
        and status.phase == "Published"
        and not evaluation.outstanding(spec, record.spec.round, status.evaluation)
        and stop.is_last(training, record)
    )


def begins(look: Look, record: Record) -> bool:
    """Whether the participants are to be asked now; their folders have to be there first."""
    asked = record.status.personalization
    return not asked and not look.training.spec.suspend and _is_due(look.training, record)


def gone_on(look: Look, record: Record, *, prepared: bool) -> dict[str, object]:
    """What to change in the record's status.

    A round that is the last one no longer, because the spec was changed, forgets what it asked.
    """
    spec, status = look.training.spec, record.status
    tuned: list[FineTuned] = list(status.personalization)
    if not _is_due(look.training, record):
        tuned = [t for t in tuned if not t.is_open]
        if len(tuned) < len(status.personalization):
            tuned = []
    elif begins(look, record) and prepared:
        tuned = [FineTuned(name=name) for name in sorted(p.name for p in spec.participants)]
    tuned = [assignments.kept_going(look, assignments.dropped(look, t)) for t in tuned]
    waits = any(t.is_open for t in tuned) and not spec.suspend
    since = look.since(status.personalizing_since) if waits else None
    if waits:
        tuned = [assignments.in_time(look, t, since) for t in tuned]
    done = not any(t.is_open for t in tuned)
    return {
        "personalization": tuned,
        "personalizing_since": since,
        "personalized": spread.personalized(spec, tuned) if done else {},
    }
