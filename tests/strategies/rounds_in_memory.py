"""A round of aggregation in a few lines, on whole arrays in memory: what the engine does by pieces.

Products are sums of elementwise products; the engine takes them in runs, by BLAS.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedtrain.strategies import Array, Facts, Strategy, strategy
from fedtrain.strategies.mean import weighted_mean

DOCUMENTS: tuple[Mapping[str, object], ...] = (
    {"name": "FedAvg"},
    {"name": "FedProx"},
    {"name": "SCAFFOLD"},
    {"name": "FedNova"},
    {"name": "FedAvgM"},
    {"name": "FedAdam"},
    {"name": "FedYogi"},
    {"name": "FedAdagrad"},
    {"name": "DiLoCo"},
    {"name": "Median"},
    {"name": "TrimmedMean", "trim": 1},
    {"name": "TrimmedMean", "trim": 2},
    {"name": "Krum", "byzantine": 1},
    {"name": "MultiKrum", "byzantine": 1},
    {"name": "MultiKrum", "byzantine": 2, "selected": 3},
    {"name": "Bulyan", "byzantine": 1},
    {"name": "Bulyan", "byzantine": 2},
    {"name": "GeometricMedian"},
    {"name": "CenteredClipping", "radius": 1e6},
    {"name": "CenteredClipping", "radius": 0.5, "iterations": 3},
)
"""Each strategy, those with numbers of their own twice."""


def label(document: Mapping[str, object]) -> str:
    return "-".join(str(value) for value in document.values())


def initial(rule: Strategy, size: int) -> dict[str, Array]:
    """The server's slots before the first round."""
    return {name: np.full(size, value, np.float32) for name, value in rule.slots.items()}


def facts_of(
    rule: Strategy,
    deltas: Array,
    samples: Sequence[float] | None = None,
    slots: Mapping[str, Array] | None = None,
    lengths: Sequence[float] | None = None,
) -> Facts:
    """What inspection measures. samples, lengths: alike if left out. slots: the initial ones."""
    weights = np.ones(len(deltas)) if samples is None else np.array(samples, np.float64)
    rows = deltas.astype(np.float64)
    if rule.center is not None:
        slots = initial(rule, deltas.shape[1]) if slots is None else slots
        rows = np.vstack([rows, slots[rule.center]])
    products = np.array([[np.sum(a * b) for b in rows] for a in rows])
    return Facts(
        weights=weights / weights.sum(),
        products=products,
        lengths=np.ones(len(deltas)) if lengths is None else np.array(lengths, np.float64),
        population=len(deltas),
    )


def reduced(
    rule: Strategy,
    deltas: Array,
    samples: Sequence[float] | None = None,
    slots: Mapping[str, Array] | None = None,
) -> Array:
    """The delta that the server's step gets. Arguments as of `facts_of`."""
    coefficients = rule.coefficients(facts_of(rule, deltas, samples, slots))
    if rule.coordinatewise:
        return rule.combine(deltas.copy(), coefficients)
    rows = list(deltas)
    if rule.center is not None:
        rows.append((initial(rule, deltas.shape[1]) if slots is None else slots)[rule.center])
    return weighted_mean(rows, coefficients.astype(np.float32))


def reduce_by(document: Mapping[str, object], deltas: Array, **more: object) -> Array:
    return reduced(strategy(document), deltas, **more)  # type: ignore[arg-type]


def updates(seed: int, participants: int, size: int = 33, scale: float = 1.0) -> Array:
    """Random deltas around a common direction, (participants, size) fp32."""
    rng = np.random.default_rng(seed)
    deltas = rng.normal(size=size) + rng.normal(size=(participants, size))
    return (scale * deltas).astype(np.float32)
