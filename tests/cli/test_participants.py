"""What a terminal shows of the round in progress, below the bar."""

import io
from datetime import UTC, datetime, timedelta

import rich.console

from fedoperator.api.round import Assignment, Record, RoundSpec, RoundStatus
from fedoperator.local import participants

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def shown(*people: Assignment) -> list[str]:
    names = [p.name for p in people]
    record = Record(
        name="digits-00003",
        spec=RoundSpec(training="digits", round=3, invited=names),
        status=RoundStatus(participants=list(people)),
    )
    console = rich.console.Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(participants.table(record, NOW))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_whoever_is_in_trouble_comes_first_and_says_why() -> None:
    started = NOW - timedelta(seconds=42)
    rows = shown(
        Assignment(name="east", state="Reported", samples=120, seconds=3.25),
        Assignment(name="north", state="Running", started_at=started),
        Assignment(name="west", state="Retrying", attempt=2, reason="OOMKilled", message="[b] no"),
    )
    assert [row.split() for row in rows[1:]] == [
        ["west", "Retrying", "2", "OOMKilled:", "[b]", "no"],
        ["north", "Running", "1", "42"],
        ["east", "Reported", "1", "3.2", "120"],
    ]


def test_a_thousand_are_a_dozen_and_a_number() -> None:
    rows = shown(*(Assignment(name=f"site-{n}") for n in range(1000)))
    assert len(rows) == participants.MOST + 2
    assert rows[-1] == "and 988 more"
