"""What was measured, round by round: of the global model, and of the training that led to it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedoperator.api.round import Assignment, Record
from fedoperator.api.training import TrainingSpec

MOST = 12
"""Metrics that are drawn."""
LINES = 24
"""Participants with a line of their own in a plot; the least and the greatest are of all."""

Values = tuple[float | None, ...]
"""One per round, None where nothing was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extreme:
    """The least or the greatest of a round, and whose it is; nobody's if only a range is known."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One plot. centre: the line that counts, or none; own: those of the participants."""

    key: str
    title: str
    subtitle: str
    centre_name: str
    centre: Values
    own: Mapping[str, Values]
    least: tuple[Extreme | None, ...]
    greatest: tuple[Extreme | None, ...]
    left_out: int
    """Participants without a line."""

    @property
    def is_empty(self) -> bool:
        return all(v is None for v in self.centre) and all(e is None for e in self.least)


def metrics(spec: TrainingSpec, records: Sequence[Record]) -> list[str]:
    """Names of all metrics, what `stop` looks at first, then accuracy, then loss."""
    names = {
        name
        for record in records
        for found in (record.status.metrics, *(p.metrics for p in record.status.participants))
        for name in found
    }
    first = [spec.stop.metric] if spec.stop is not None else []
    first += ["accuracy", "loss"]
    return sorted(names, key=lambda name: (first.index(name) if name in first else 9, name))


def measured(spec: TrainingSpec, records: Sequence[Record]) -> tuple[list[Curve], int]:
    """Two plots for each metric, those without a value left out; and how many metrics were."""
    names = metrics(spec, records)
    found = []
    for name in names[:MOST]:
        better = "less is better" if spec.less_is_better(name) else "more is better"
        found += [
            curve(
                f"model-{name}",
                f"{name} of the global model",
                f"as measured after the round; {better}",
                ("global model", [finite(r.status.metrics.get(name)) for r in records]),
                [_of(record.status.evaluation, name) for record in records],
            ),
            curve(
                f"training-{name}",
                f"{name} in training",
                f"as the scripts reported it with their updates; {better}",
                ("weighted mean", [record.status.trained(name) for record in records]),
                [_of(record.status.participants, name) for record in records],
            ),
        ]
    return [c for c in found if not c.is_empty], max(0, len(names) - MOST)


def of_updates(records: Sequence[Record]) -> list[Curve]:
    """What inspection measured of the updates themselves, where the records have it: of each, or,
    in a large round, the range of all."""
    wanted = (
        ("norm", "norm of the updates", "Euclidean, of the parameters of each accepted update"),
        (
            "cosine",
            "cosine of the updates",
            "to what the round made of them; 1: the same direction",
        ),
    )
    found = []
    for key, title, subtitle in wanted:
        rounds = [_values(r.status.participants, _field(key)) for r in records]
        ranges = [getattr(r.status.measured, f"{key}s", None) for r in records]
        medians = [
            _median(values) if given is None else finite(given.median)
            for values, given in zip(rounds, ranges, strict=True)
        ]
        one = curve(f"update-{key}", title, subtitle, ("median", medians), rounds)
        found.append(
            replace(
                one,
                least=_or_of_all(one.least, [g and g.least for g in ranges]),
                greatest=_or_of_all(one.greatest, [g and g.most for g in ranges]),
            )
        )
    return [c for c in found if not c.is_empty]


def curve(
    key: str,
    title: str,
    subtitle: str,
    centre: tuple[str, Sequence[float | None]],
    rounds: Sequence[Mapping[str, float]],
) -> Curve:
    """rounds: per round, the participants' values."""
    names = sorted({name for values in rounds for name in values})
    shown = names if len(names) <= LINES else _outermost(names, rounds)
    return Curve(
        key=key,
        title=title,
        subtitle=subtitle,
        centre_name=centre[0],
        centre=tuple(centre[1]),
        own={name: tuple(values.get(name) for values in rounds) for name in shown},
        least=tuple(_extreme(values, min) for values in rounds),
        greatest=tuple(_extreme(values, max) for values in rounds),
        left_out=len(names) - len(shown),
    )


def finite(value: float | None) -> float | None:
    """JSON has no other numbers, and a plot no place for them."""
    return value if value is not None and math.isfinite(value) else None


def _of(assignments: Iterable[Assignment], name: str) -> dict[str, float]:
    return _values(assignments, lambda a: a.metrics.get(name))


def _values(
    assignments: Iterable[Assignment], read: Callable[[Assignment], object]
) -> dict[str, float]:
    found = {}
    for assignment in assignments:
        value = read(assignment)
        if isinstance(value, int | float) and math.isfinite(value):
            found[assignment.name] = float(value)
    return found


def _field(name: str) -> Callable[[Assignment], object]:
    return lambda assignment: getattr(assignment, name)


def _outermost(names: Sequence[str], rounds: Sequence[Mapping[str, float]]) -> list[str]:
    """Those whose last value is among the least or the greatest, in order of name."""
    last = {name: value for values in rounds for name, value in values.items()}
    ranked = sorted(names, key=lambda name: (last[name], name))
    return sorted({*ranked[: LINES // 2], *ranked[-(LINES // 2) :]})


def _extreme(values: Mapping[str, float], choose: Callable[..., str]) -> Extreme | None:
    if not values:
        return None
    name = choose(sorted(values), key=lambda name: values[name])
    return Extreme(name=name, value=values[name])


def _or_of_all(
    named: Sequence[Extreme | None], values: Sequence[float | None]
) -> tuple[Extreme | None, ...]:
    """The end of a range, if nobody's own value is known."""
    return tuple(
        Extreme(name="", value=value) if one is None and value is not None else one
        for one, value in zip(named, values, strict=True)
    )


def _median(values: Mapping[str, float]) -> float | None:
    ranked = sorted(values.values())
    middle = len(ranked) // 2
    if not ranked:
        return None
    return ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2
