"""The folders of a training's participants: made before their pods start, by a pod that may stay.

Where pods stay (`pods: Resident`), the preparation goes on as their hub: one that is gone is asked
for again while work is left.
"""

from collections.abc import Iterable

from fedoperator.api.base import timestamp
from fedoperator.api.round import Assignment, Record, RoundStatus
from fedoperator.api.status import TrainingStatus
from fedoperator.rounds import assignments, resident, retry
from fedoperator.rounds.look import Look


def gone_on(look: Look, record: Record) -> Record:
    """The record with its preparation gone on with, in whatever phase it was asked for."""
    prepare = record.status.prepare
    if prepare is None:
        return record
    update = {"prepare": assignments.kept_going(look, prepare)}
    return record.model_copy(update={"status": record.status.model_copy(update=update)})


def lacks_hub(look: Look, status: RoundStatus) -> bool:
    """Whether pods stay, and the preparation that stayed as their hub is gone."""
    spec = look.training.spec
    if spec.pods != "Resident" or spec.suspend or resident.HUB in look.carriers:
        return False
    return status.prepare is None or not status.prepare.is_open


def prepared_generation(status: TrainingStatus, records: Iterable[Record]) -> int:
    """Of the last spec all of whose participants have a folder; 0 if there is none."""
    done = [
        r.status.prepare_generation
        for r in records
        if r.status.prepare is not None and r.status.prepare.state == "Reported"
    ]
    return max([status.prepared_generation, *done])


def is_prepared(look: Look, status: RoundStatus, generation: int) -> bool:
    """Whether all participants of that spec have a folder; their pods may not start before."""
    if lacks_hub(look, status):
        return False
    return look.prepared >= generation


def asked_for(look: Look, status: RoundStatus) -> dict[str, object]:
    """What to change so that the folders get made; nothing while one preparation is under way."""
    prepare = status.prepare
    if prepare is not None and prepare.is_open:
        return {}
    again = Assignment() if prepare is None else retry.invited_again(prepare)
    if prepare is not None and lacks_hub(look, status):  # one that dies and dies gets slower
        wait = timestamp(look.now + retry.backoff(prepare.attempt))
        again = prepare.model_copy(update={"state": "Retrying", "not_before": wait})
    return {"prepare": again, "prepare_generation": look.training.generation}
