"""`fedtrain describe NAME`: how far, how good, why not, and what to do."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.cli import options as common
from fedoperator.cli import source, table
from fedoperator.local import report, visible
from fedoperator.rounds import quarantine

_ROUNDS = 10
_EVENTS = 10


def add(commands: common.Commands) -> None:
    describe = common.command(
        commands,
        "describe",
        help="say how a training stands, and why",
        description="How far a training is, how good, why not further, and what to do about it.",
    )
    common.named(describe)
    common.cluster(describe)
    common.output(describe)
    describe.add_argument("--all", action="store_true", help=f"all rounds, not the last {_ROUNDS}")
    describe.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    found = source.of(
        options.name, options.namespace, kubeconfig=options.kubeconfig, context=options.context
    )
    training, records, events = found.training(), found.records(), found.events()
    if options.output == "json":
        common.print_json(document(training, records, events))
        return 0
    for line in sentences(training, records, found.where, options.name):
        print(visible.line(line))
    shown = [r for r in records if r.spec.round > 0][0 if options.all else -_ROUNDS :]
    if shown:
        print()
        table.print_table(_HEADS, [_row(record) for record in shown])
    lost = list(dropped(shown))
    if lost:
        print()
        table.print_table(("round", "without", "reason", "message"), lost)
    if training.status.conditions:
        print()
        rows = [(c.type, c.status, c.reason, c.message) for c in training.status.conditions]
        table.print_table(("condition", "status", "reason", "message"), rows)
    if events:
        print()
        told = [
            (
                e.get("lastTimestamp") or "",
                e.get("type", ""),
                e.get("reason", ""),
                e.get("message") or "",
            )
            for e in events[-_EVENTS:]
        ]
        table.print_table(("when", "type", "event", "message"), told)
    return 0


def sentences(
    training: Training, records: Sequence[Record], where: str, given: str
) -> Iterator[str]:
    """The story in words. given: what the user calls the training."""
    status = training.status
    yield f"{training.name} {where} is {_phase(training)}"
    yield _far(training)
    model = status.global_model
    if status.metrics:
        of = f" of round {status.evaluated_round}" if status.evaluated_round is not None else ""
        yield f"The global model{of} has {', '.join(report.measured(status.metrics))}."
    if status.best is not None and status.best.round != status.evaluated_round:
        value = f"{status.best.metric} {status.best.value:.4g}"
        yield f"The best was round {status.best.round}, {value}."
    if model is not None:
        yield f"The model is {model.path} on the exchange, {model.digest}."
    if status.reason and status.phase != "Succeeded":
        yield f"Why not further: {status.reason}: {status.message}"
    counts = status.participants
    if counts.invited and not status.terminal:
        words = [f"{counts.invited} invited", f"{counts.running} running"]
        words += [f"{counts.reported} reported", f"{counts.failed} failed"]
        yield f"In round {status.round}: {', '.join(words)}."
    if records:
        out = quarantine.left_out(records[-1])
        if out:
            yield f"Left out for losing too many rounds: {', '.join(out)}."
    why = Counter((name, reason) for _, name, reason, _ in dropped(records))
    for (name, reason), count in why.most_common(3):
        if count > 1:
            yield f"{name} was missing {count} times for {reason}."
    todo = _what_to_do(training, given)
    if todo:
        yield f"What to do: {todo}"


def _phase(training: Training) -> str:
    status = training.status
    took = _took(status.started_at, status.finished_at)
    return f"{status.phase}{f' after {took}' if took else ''}."


def _far(training: Training) -> str:
    status, spec = training.status, training.spec
    done = status.global_model.round if status.global_model else 0
    return f"{done} of at most {spec.rounds} rounds are published, by {spec.strategy.name}."


def _what_to_do(training: Training, name: str) -> str:
    match training.status.phase:
        case "Suspended":
            return f"fedtrain resume {name}"
        case "Succeeded":
            return f"fedtrain models download {name} OUT"
        case "Failed":
            return f"fedtrain logs {name}; then another training, from its model"
        case "Blocked":
            return "what the message says; it is tried again by itself"
    return ""


_HEADS = ("round", "phase", "accepted", "metrics", "worst", "seconds", "missing")


def _row(record: Record) -> tuple[object, ...]:
    status = record.status
    metrics = "  ".join(report.measured(status.metrics))
    missing = [p.name for p in status.participants if p.state not in ("Accepted", "Reported")]
    over = status.phase == "Published"
    accepted = sum(p.state == "Accepted" for p in status.participants)
    count = f"{accepted}/{len(status.participants)}"
    seconds = _seconds(status.started_at, status.published_at)
    names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return (
        record.spec.round,
        status.phase,
        count,
        metrics,
        status.worst,
        "" if seconds is None else f"{seconds:.1f}",
        names if over else "",
    )


def dropped(records: Sequence[Record]) -> Iterator[tuple[int, str, str, str]]:
    """(round, participant, reason, message) of everybody who is not part of a round's model."""
    for record in records:
        for p in record.status.participants:
            if p.is_lost:
                yield record.spec.round, p.name, p.reason or p.state, p.message or p.last_failure


def document(
    training: Training, records: Sequence[Record], events: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """For programs."""
    return {
        "name": training.name,
        "namespace": training.namespace,
        "uid": training.uid,
        "spec": training.spec.to_dict(),
        "status": training.status.to_dict(),
        "rounds": [{"spec": r.spec.to_dict(), "status": r.status.to_dict()} for r in records],
        "events": [
            {name: event.get(name) for name in ("lastTimestamp", "type", "reason", "message")}
            for event in events
        ],
    }


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()


def _took(start: datetime | None, end: datetime | None) -> str:
    seconds = _seconds(start, end)
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
