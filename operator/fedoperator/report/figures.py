"""Everything that the page shows, read off a training and its records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedoperator.api.round import Assignment, Record
from fedoperator.api.training import Training
from fedoperator.report import curves, losses, participants, timing
from fedoperator.report.curves import Curve
from fedoperator.report.losses import Loss
from fedoperator.report.participants import Row

ROUNDS = 1000
"""The latest; earlier ones are left out."""
DETAILS = 200_000
"""Figures of single contributions that a page holds, over all rounds."""
_FEWEST = 5
_TEXT = 400
"""Characters of a message beside a contribution; the table of losses has it in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """records: the latest rounds, in order, round 0 among them if it is known."""

    training: Training
    records: tuple[Record, ...]
    earlier: int
    """Rounds that are known, and left out."""
    score: str
    """The metric that says how good it is, or an empty text."""
    curves: tuple[Curve, ...]
    metrics_left_out: int
    updates: tuple[Curve, ...]
    rows: tuple[Row, ...]
    losses: tuple[Loss, ...]
    contributions: int
    """How many participants of a round are shown one by one."""

    @property
    def trained(self) -> tuple[Record, ...]:
        """Those in which somebody trains."""
        return tuple(record for record in self.records if record.spec.round)


def of(training: Training, records: Sequence[Record]) -> Figures:
    """records: in any order, of this training."""
    ordered = sorted(records, key=lambda record: record.spec.round)
    shown = tuple(ordered[-ROUNDS:])
    trained = [record for record in shown if record.spec.round]
    spec = training.spec
    names = curves.metrics(spec, trained)
    measured, left_out = curves.measured(spec, trained)
    score = names[0] if names else ""
    each = 12 + 2 * len(names)
    return Figures(
        training=training,
        records=shown,
        earlier=len(ordered) - len(shown),
        score=score,
        curves=tuple(measured),
        metrics_left_out=left_out,
        updates=tuple(curves.of_updates(trained)),
        rows=tuple(participants.rows(spec, trained, score)),
        losses=tuple(losses.losses(trained)),
        contributions=max(_FEWEST, DETAILS // (each * max(len(shown), 1))),
    )


def document(figures: Figures) -> dict[str, Any]:
    """What the plots are drawn of, as plain JSON values."""
    everything = (*figures.curves, *figures.updates)
    return {
        "rounds": [_round(record, figures) for record in figures.records],
        "trained": [record.spec.round for record in figures.trained],
        "curves": {one.key: _curve(one) for one in everything},
        "strips": [[row.name, row.strip] for row in figures.rows],
        "words": participants.WORDS,
        "phases": list(timing.PHASES),
    }


def _curve(one: Curve) -> dict[str, Any]:
    return {
        "title": one.title,
        "centreName": one.centre_name,
        "centre": list(one.centre),
        "own": [[name, list(values)] for name, values in one.own.items()],
        "least": [e and [e.name, e.value] for e in one.least],
        "greatest": [e and [e.name, e.value] for e in one.greatest],
        "leftOut": one.left_out,
    }


def _round(record: Record, figures: Figures) -> dict[str, Any]:
    status = record.status
    first = figures.records[0].status.started_at
    offset = None
    if first is not None and status.started_at is not None:
        offset = round((status.started_at - first).total_seconds(), 3)
    shown = _contributions(status.participants, figures.contributions)
    names = {p.name for p in shown}
    evaluations = [e for e in status.evaluation if e.name in names]
    others = [e for e in status.evaluation if e.name not in names]
    evaluations += others[: max(0, figures.contributions - len(evaluations))]
    return {
        "round": record.spec.round,
        "phase": status.phase,
        "offset": offset,
        "spans": [[s.phase, s.start, s.end] for s in timing.spans(record)],
        "quorum": timing.since(record, status.quorum_at),
        "published": timing.since(record, status.published_at),
        "invited": len(status.participants),
        "accepted": sum(p.state == "Accepted" for p in status.participants),
        "leftOut": len(status.participants) - len(shown),
        "participants": [_assignment(record, p) for p in shown],
        "steps": [
            [what, _assignment(record, step)]
            for what, step in (
                ("preparation", status.prepare),
                ("initial model", status.init),
                ("aggregation", status.aggregation),
            )
            if step is not None
        ],
        "evaluation": [_assignment(record, e) for e in evaluations],
    }


def _contributions(assignments: Sequence[Assignment], most: int) -> list[Assignment]:
    """As recorded; if they are too many those that were not accepted, and the slowest."""
    if len(assignments) <= most:
        return list(assignments)
    ranked = sorted(assignments, key=lambda a: (a.state == "Accepted", -(a.seconds or 0.0), a.name))
    names = {a.name for a in ranked[:most]}
    return [a for a in assignments if a.name in names]


def _assignment(record: Record, assignment: Assignment) -> dict[str, Any]:
    """Without what is not known."""
    values: Mapping[str, object] = {
        "name": assignment.name,
        "state": assignment.state,
        "attempt": assignment.attempt,
        "failures": assignment.failures,
        "start": timing.since(record, assignment.started_at),
        "samples": assignment.samples,
        "weight": curves.finite(assignment.weight),
        "seconds": curves.finite(assignment.seconds),
        "metrics": {
            k: v for k, v in sorted(assignment.metrics.items()) if curves.finite(v) is not None
        },
        "norm": curves.finite(assignment.norm),
        "cosine": curves.finite(assignment.cosine),
        "digest": assignment.digest,
        "reason": assignment.reason,
        "message": _short(assignment.message or assignment.last_failure),
    }
    return {key: value for key, value in values.items() if value not in (None, "", {})}


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 4] + " ..."
