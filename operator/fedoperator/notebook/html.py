"""Small tables for notebooks. What participants and scripts said is text, never markup."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from fedoperator.api.status import TrainingStatus
from fedoperator.api.training import TrainingSpec

if TYPE_CHECKING:
    from fedoperator.notebook.rounds import Round

_MOST = 20
"""Rows; of rounds the last ones."""


def of_training(name: str, spec: TrainingSpec) -> str:
    rows = []
    for participant in spec.participants[:_MOST]:
        trainer = spec.trainer_of(participant)
        command = " ".join([*(trainer.command or []), *(trainer.args or [])])
        rows.append([participant.name, trainer.nodes or 1, command])
    title = f"{spec.rounds} rounds of {spec.strategy.name}"
    more = _more(len(spec.participants) - _MOST, "participants")
    return _table(name, title, ["participant", "nodes", "command"], rows) + more


def of_round(rnd: "Round") -> str:
    rows = [
        [
            p.name,
            p.state,
            "" if p.samples is None else p.samples,
            "" if p.weight is None else f"{p.weight:.1%}",
            _measured(p.metrics),
            "" if p.seconds is None else f"{p.seconds:.1f}",
            "" if p.state == "Accepted" else p.message or p.reason,
        ]
        for p in rnd.participants[:_MOST]
    ]
    heads = ["participant", "state", "samples", "weight", "metrics", "seconds", "why not"]
    more = _more(len(rnd.participants) - _MOST, "participants")
    return _table(f"round {rnd.number}", _measured(rnd.metrics), heads, rows) + more


def of_run(name: str, status: TrainingStatus, rounds: Sequence["Round"]) -> str:
    rows = []
    for rnd in rounds[-_MOST:]:
        seconds = "" if rnd.seconds is None else f"{rnd.seconds:.1f}"
        missing = ", ".join(f"{who} ({why})" for who, why in rnd.missing.items())
        count = f"{len(rnd.accepted)}/{len(rnd.participants)}"
        rows.append([rnd.number, count, _measured(rnd.metrics), seconds, missing])
    title = " ".join(filter(None, [status.phase, status.progress, status.message]))
    more = _more(len(rounds) - _MOST, "earlier rounds")
    return _table(name, title, ["round", "accepted", "metrics", "seconds", "without"], rows) + more


def _measured(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))


def _table(name: str, title: str, heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    caption = f"<caption><b>{escape(name)}</b> {escape(title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _more(count: int, what: str) -> str:
    return f"<p>and {count} more {escape(what)}</p>" if count > 0 else ""
