"""On a terminal, the bar of a run and below it the participants of the round in progress."""

from collections.abc import Iterable
from datetime import UTC, datetime

import rich.progress
import rich.table
from rich.console import RenderableType
from rich.text import Text

from fedoperator.api.round import OPEN, Assignment, Record
from fedoperator.local import visible

MOST = 12
"""Rows; whoever is in trouble comes first."""

_COLOURS = {"Accepted": "green", "Reported": "green", "Running": "cyan", "Retrying": "yellow"}
_COLOURS |= {"Failed": "red", "Late": "red", "Rejected": "red", "Dropped": "red"}


class Bar(rich.progress.Progress):
    """record: of the round in progress; None shows no participants."""

    record: Record | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.record is not None and self.record.status.participants:
            yield table(self.record, datetime.now(UTC))


def table(record: Record, now: datetime) -> rich.table.Table:
    """A row for each participant: state, attempt, how long, and why not further."""
    people = sorted(record.status.participants, key=_need)
    shown = rich.table.Table(box=None, pad_edge=False)
    for head in ("participant", "state", "attempt", "seconds", "samples", "why"):
        shown.add_column(head, style="" if head != "why" else "dim", no_wrap=head != "why")
    for p in people[:MOST]:
        colour = _COLOURS.get(p.state, "")
        state = f"[{colour}]{p.state}[/]" if colour else p.state
        why = f"{p.reason}: {p.message}" if p.reason else p.message
        shown.add_row(
            Text(visible.line(p.name)),
            state,
            str(p.attempt),
            _seconds(p, now),
            "" if p.samples is None else str(p.samples),
            Text(visible.line(why[:120])),
        )
    if len(people) > MOST:
        shown.add_row(f"and {len(people) - MOST} more")
    return shown


def _need(assignment: Assignment) -> tuple[int, str]:
    """Who needs a look first."""
    if assignment.state in ("Accepted", "Reported"):
        return 2, assignment.name
    return (1 if assignment.state in OPEN and not assignment.reason else 0), assignment.name


def _seconds(assignment: Assignment, now: datetime) -> str:
    """As it measured itself; of one that runs, so far."""
    if assignment.seconds is not None:
        return f"{assignment.seconds:.1f}"
    if assignment.started_at is None or assignment.state != "Running":
        return ""
    return f"{(now - assignment.started_at).total_seconds():.0f}"
