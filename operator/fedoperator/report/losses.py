"""Who was dropped and why: every loss, and every attempt that failed on the way to an update."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fedoperator.api.round import Record
from fedoperator.rounds import quarantine

MOST = 300
"""Rows of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What befell one participant for one reason. said: the last message of it."""

    name: str
    what: str
    """failed, late, rejected, dropped, quarantined; or retried: its update was accepted in the
    end."""
    reason: str
    said: str
    rounds: tuple[int, ...]


def losses(records: Sequence[Record]) -> list[Loss]:
    """One for each participant, kind and reason; those that cost most rounds first."""
    found: dict[tuple[str, str, str], Loss] = {}
    for record in records:
        for loss in _of_round(record):
            key = (loss.name, loss.what, loss.reason)
            before = found.get(key)
            rounds = (*before.rounds, *loss.rounds) if before else loss.rounds
            found[key] = replace(loss, rounds=rounds)
    return sorted(
        found.values(),
        key=lambda loss: (loss.what == "retried", -len(loss.rounds), loss.name, loss.reason),
    )


def _of_round(record: Record) -> Iterator[Loss]:
    number = (record.spec.round,)
    for p in record.status.participants:
        if p.is_lost:
            what, reason = p.state.lower(), p.reason or p.state
            said = p.message or p.last_failure
            yield Loss(name=p.name, what=what, reason=reason, said=said, rounds=number)
        elif p.last_failure or p.failures:
            reason, said = _reason_first(p.last_failure)
            yield Loss(name=p.name, what="retried", reason=reason, said=said, rounds=number)
    for name, until in quarantine.left_out(record).items():
        said = f"for having lost too many rounds; up to round {until}"
        yield Loss(name=name, what="quarantined", reason="Quarantined", said=said, rounds=number)


def _reason_first(failure: str) -> tuple[str, str]:
    """`NoSubmit: the script ended ...` → the reason and its sentence."""
    reason, colon, sentence = failure.partition(": ")
    return (reason, sentence) if colon and reason.isalnum() else ("Failed", failure)


def ranges(rounds: Sequence[int]) -> str:
    """`3, 5-7`."""
    parts: list[list[int]] = []
    for number in rounds:
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(str(n) for n in part) for part in parts)
