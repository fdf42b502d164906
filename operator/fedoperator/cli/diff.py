"""`fedtrain diff A B`: what two trainings were asked for, and what came of them."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedoperator.api.round import Record
from fedoperator.api.training import TrainingSpec
from fedoperator.cli import changes, source, table, validate
from fedoperator.cli import options as common

DESCRIPTION = """\
Compare two trainings: the fields in which they differ; then, round by round, whether their models
are the same bytes, their metrics, and how long they took. Each of A and B is a file, the --out
folder of a run, or NAME or NAMESPACE/NAME on the cluster."""

DIFFERENT = 3


def add(commands: common.Commands) -> None:
    diff = common.command(
        commands,
        "diff",
        help="compare two trainings",
        description=DESCRIPTION,
        exits={0: "they are alike", DIFFERENT: "they differ in a field or in a model"},
    )
    for name in ("A", "B"):
        diff.add_argument(name.lower(), metavar=name, help="a file, a run's folder, or a name")
    common.cluster(diff)
    common.output(diff)
    diff.set_defaults(act=act)


@dataclass(frozen=True, slots=True)
class Side:
    """A training to compare. spec: with defaults."""

    spec: dict[str, Any]
    rounds: Mapping[int, Record]


def act(options: argparse.Namespace) -> int:
    sides = [_side(given, options) for given in (options.a, options.b)]
    fields = list(changes.between(sides[0].spec, sides[1].spec))
    rows = list(rounds(*sides))
    differ = bool(fields) or any(row["same"] is False for row in rows)
    if options.output == "json":
        told = [{"field": f, "a": a, "b": b} for f, a, b in fields]
        common.print_json({"fields": told, "rounds": rows})
        return DIFFERENT if differ else 0
    for change in fields:
        print(changes.line(*change))
    if not fields:
        print("they ask for the same")
    if rows:
        print()
        names = sorted({name for row in rows for name in row["a"]["metrics"] | row["b"]["metrics"]})
        table.print_table(
            ("round", "model", *names, "seconds"), [_cells(row, names) for row in rows]
        )
    return DIFFERENT if differ else 0


def _side(given: str, options: argparse.Namespace) -> Side:
    if not source.is_folder(given) and _is_file(given):
        document = validate.checked(given)
        return Side(TrainingSpec.model_validate(document["spec"]).to_dict(), {})
    found = source.of(
        given, options.namespace, kubeconfig=options.kubeconfig, context=options.context
    )
    training = found.training()
    return Side(training.spec.to_dict(), {r.spec.round: r for r in found.records()})


def _is_file(given: str) -> bool:
    from pathlib import Path

    try:
        return given == "-" or Path(given).is_file() or given.endswith((".yaml", ".yml", ".json"))
    except (OSError, ValueError):
        return False


def rounds(a: Side, b: Side) -> Iterator[dict[str, Any]]:
    """Each round that both have a model of."""
    for number in sorted(a.rounds.keys() & b.rounds.keys()):
        one, other = (side.rounds[number].status for side in (a, b))
        if one.global_model is None or other.global_model is None:
            continue
        yield {
            "round": number,
            "same": one.global_model.digest == other.global_model.digest,
            "a": _told(a.rounds[number]),
            "b": _told(b.rounds[number]),
        }


def _told(record: Record) -> dict[str, Any]:
    status = record.status
    seconds = None
    if status.started_at is not None and status.published_at is not None:
        seconds = (status.published_at - status.started_at).total_seconds()
    digest = status.global_model.digest if status.global_model else None
    return {"digest": digest, "metrics": dict(status.metrics), "seconds": seconds}


def _cells(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    a, b = row["a"], row["b"]
    cells = [str(row["round"]), "same" if row["same"] else "differs"]
    for name in names:
        cells.append(_pair(a["metrics"].get(name), b["metrics"].get(name), "{:.4g}"))
    return [*cells, _pair(a["seconds"], b["seconds"], "{:.1f}")]


def _pair(one: float | None, other: float | None, form: str) -> str:
    """`0.91 → 0.93`, or one of them where they are alike."""
    texts = ["-" if value is None else form.format(value) for value in (one, other)]
    return texts[0] if texts[0] == texts[1] else " → ".join(texts)
