"""What is tracked: a training as a run, each of its rounds as a step. Pure, and bounded.

Names of values: SUBJECT/NAME, as in global/accuracy. docs/how-to/tracking.md lists them.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic.alias_generators import to_camel

from fedoperator.api import changes
from fedoperator.api import round as round_api
from fedoperator.api.round import Assignment, Record
from fedoperator.api.training import Training
from fedoperator.rounds import evaluation, quarantine
from fedtrain import contract

EACH = 64
"""Participants up to which each has series of its own; of more there are sums and means."""

PARAMS = 200
"""Parameters of a run; a script's own may be any number, nested."""

TEXT = 500
"""Characters of a parameter or a tag: what every version of MLflow takes."""

STEP = "round/invited"
"""A value that every step has."""

State = Literal["Running", "Succeeded", "Failed", "Abandoned"]
_NOT_TRACKED = frozenset({"exchange", "security", "network"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training. uid: what it is found by; params: what is fixed once it has started."""

    uid: str
    name: str
    namespace: str
    experiment: str
    state: State
    started_at: datetime | None
    finished_at: datetime | None
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A round that is over, at the moment of its model."""

    number: int
    at: datetime
    values: Mapping[str, float]
    tags: Mapping[str, str]


def run(training: Training) -> Run:
    status, asked = training.status, training.spec.tracking
    mlflow = asked.mlflow if asked is not None else None
    over: State = "Succeeded" if status.phase == "Succeeded" else "Failed"
    return Run(
        uid=training.uid,
        name=training.name,
        namespace=training.namespace,
        experiment=(mlflow.experiment if mlflow is not None else None) or training.name,
        state=over if status.terminal else "Running",
        started_at=status.started_at,
        finished_at=status.finished_at,
        params=_params(training),
        tags={f"fedtrain.{name}": _cut(value) for name, value in _tags(training).items()},
    )


def is_over(training: Training, record: Record) -> bool:
    """Whether nothing of the round will change any more."""
    status, number, spec = record.status, record.spec.round, training.spec
    if training.status.terminal:
        return True
    if status.phase != "Published":
        return False
    if spec.fine_tune is not None and number >= training.status.round:
        return False
    # A model is measured beside the next round, never beside the one after it.
    if number < training.status.round - 1:
        return True
    return not evaluation.outstanding(spec, number, status.evaluation)


def step(training: Training, record: Record) -> Step:
    """Of a round that is over."""
    status = record.status
    ended = status.published_at or training.status.finished_at or status.started_at
    assert ended is not None, "a round that is over has begun"
    return Step(
        number=record.spec.round,
        at=ended,
        values=dict(_values(training, record)),
        tags={f"fedtrain.{name}": _cut(value) for name, value in _lineage(record).items()},
    )


def _values(training: Training, record: Record) -> Iterator[tuple[str, float]]:
    status, spec = record.status, training.spec
    yield from _named("global", status.metrics)
    yield from _named("worst", {name: s.worst.value for name, s in status.spread.items()})
    yield from _named("best", {name: s.best.value for name, s in status.spread.items()})
    accepted = [p for p in status.participants if p.state == "Accepted"]
    reported = {name for p in accepted for name in p.metrics}
    trained = {name: status.trained(name) for name in reported}
    yield from _named("train", {name: v for name, v in trained.items() if v is not None})
    if len(spec.participants) <= EACH:
        for p in status.participants:
            yield from _of_participant(p)
        for e in status.evaluation:
            yield from _named(f"evaluation/{e.name}", e.metrics)
    for name, tuned in status.personalized.items():
        ends = {"worst": tuned.worst.value, "best": tuned.best.value}
        yield from _named(
            f"personalized/{name}", {"before": tuned.before, "after": tuned.after, **ends}
        )
    if status.measured is not None:
        measured = status.measured
        yield "aggregation/bytes", float(measured.bytes)
        yield "aggregation/seconds", measured.seconds
        yield "aggregation/peak_memory", float(measured.peak_memory)
        if measured.residual is not None:
            yield "aggregation/residual", measured.residual
    if status.started_at is not None and status.published_at is not None:
        yield "round/seconds", (status.published_at - status.started_at).total_seconds()
    states = Counter(p.state for p in status.participants)
    yield from _named("round", {state.lower(): float(states[state]) for state in round_api.LOST})
    yield "round/accepted", float(len(accepted))
    yield "round/samples", float(sum(p.samples or 0 for p in accepted))
    yield "round/failures", float(sum(p.failures for p in status.participants))
    yield "round/quarantined", float(len(quarantine.left_out(record)))
    yield "round/misses", float(status.misses)
    yield STEP, float(len(status.participants))


def _of_participant(p: Assignment) -> Iterator[tuple[str, float]]:
    yield from _named(f"participant/{p.name}", p.metrics)
    yield f"accepted/{p.name}", float(p.state == "Accepted")
    for name in ("samples", "weight", "seconds"):
        value = getattr(p, name)
        if value is not None:
            yield f"{name}/{p.name}", float(value)


def _named(subject: str, values: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, value in sorted(values.items()):
        yield f"{subject}/{name}", value


def _params(training: Training) -> dict[str, str]:
    document = training.spec.to_dict()
    flat: dict[str, str] = {}
    for field in changes.FIXED:
        path = [to_camel(name) for name in field.split(".")]
        value: Any = document
        for name in path:
            value = value.get(name, {})
        if path[0] not in _NOT_TRACKED:
            for key, text in _flat(".".join(path), value):
                flat.setdefault(key, text)
    return dict(list(flat.items())[:PARAMS])


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Mappings by dotted names, all else as JSON has it; texts without quotes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif value is not None:
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        yield re.sub(r"[^A-Za-z0-9_.\- ]", "_", name)[:250], _cut(text)


def _tags(training: Training) -> dict[str, str]:
    status = training.status
    model = status.global_model
    return {
        "uid": training.uid,
        "training": f"{training.namespace}/{training.name}",
        "version": contract.VERSION,
        "phase": status.phase,
        "reason": status.reason,
        "message": status.message,
        "progress": status.progress,
        "participants": ", ".join(p.name for p in training.spec.participants),
        "model.round": str(model.round) if model else "",
        "model.digest": model.digest if model else "",
        "model.path": model.path if model else "",
        "model.base": (model.base_model or "") if model else "",
    }


def _lineage(record: Record) -> dict[str, str]:
    """What only the record knows: where the training came from, and who is not in it and why."""
    status, number = record.status, record.spec.round
    if number == 0:
        return {"initial.digest": status.global_model.digest if status.global_model else ""}
    lost = [f"{p.name} ({p.reason or p.state})" for p in status.participants if p.is_lost]
    return {"missing": f"round {number}: {', '.join(lost)}"} if lost else {}


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 4] + " ..."
