"""What each participant did in all rounds, as a row."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedoperator.api.round import Assignment, Record, State
from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import quarantine

LETTERS: Mapping[State, str] = {
    "Accepted": "A",
    "Reported": "P",
    "Failed": "F",
    "Late": "L",
    "Rejected": "R",
    "Dropped": "D",
    "Invited": "o",
    "Running": "o",
    "Retrying": "o",
    "Suspended": "o",
}
QUARANTINED, NOT_INVITED = "Q", "."
WORDS = {
    "A": "accepted",
    "P": "reported",
    "F": "failed",
    "L": "late",
    "R": "rejected",
    "D": "dropped",
    "Q": "quarantined",
    "o": "at work",
    ".": "not invited",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """strip: a letter per round. samples: of the last accepted round. weight, seconds: means."""

    name: str
    strip: str
    invited: int
    accepted: int
    lost: int
    retried: int
    samples: int | None
    weight: float | None
    seconds: float | None
    measured: float | None
    """The score of the last global model that it evaluated."""


def rows(spec: TrainingSpec, records: Sequence[Record], score: str) -> list[Row]:
    """Everyone who is a participant or was, in the order of the spec, then of name."""
    trained = [record for record in records if record.spec.round]
    invited = [{p.name: p for p in record.status.participants} for record in trained]
    out = [quarantine.left_out(record) for record in trained]
    evaluated = [{e.name: e for e in record.status.evaluation} for record in trained]
    here = [p.name for p in spec.participants]
    gone = sorted({name for found in invited for name in found} - set(here))
    return [_row(name, invited, out, evaluated, score) for name in (*here, *gone)]


def _row(
    name: str,
    invited: Sequence[Mapping[str, Assignment]],
    out: Sequence[Mapping[str, int]],
    evaluated: Sequence[Mapping[str, Assignment]],
    score: str,
) -> Row:
    mine = [found[name] for found in invited if name in found]
    accepted = [a for a in mine if a.state == "Accepted"]
    weights = [a.weight for a in accepted if a.weight is not None]
    seconds = [a.seconds for a in accepted if a.seconds is not None]
    scores = [found[name].metrics.get(score) for found in evaluated if name in found]
    return Row(
        name=name,
        strip="".join(
            _letter(found.get(name), name in left) for found, left in zip(invited, out, strict=True)
        ),
        invited=len(mine),
        accepted=len(accepted),
        lost=sum(a.is_lost for a in mine),
        retried=sum(a.failures for a in mine),
        samples=accepted[-1].samples if accepted else None,
        weight=statistics.fmean(weights) if weights else None,
        seconds=statistics.fmean(seconds) if seconds else None,
        measured=next((value for value in reversed(scores) if value is not None), None),
    )


def _letter(assignment: Assignment | None, quarantined: bool) -> str:
    if assignment is not None:
        return LETTERS[assignment.state]
    return QUARANTINED if quarantined else NOT_INVITED
