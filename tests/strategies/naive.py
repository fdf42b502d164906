"""The papers' rules in the most obvious way: fp64, loops over vectors, no inner products."""

import numpy as np

from fedtrain.strategies import Array


def median(deltas: Array) -> Array:
    return np.array([np.median(column.astype(np.float64)) for column in deltas.T])


def trimmed_mean(deltas: Array, trim: int) -> Array:
    columns = [sorted(column.astype(np.float64)) for column in deltas.T]
    return np.array([np.mean(column[trim : len(column) - trim]) for column in columns])


def krum_scores(deltas: list[Array], f: int) -> list[float]:
    scores = []
    for i, x in enumerate(deltas):
        squares = sorted(np.sum((x - y) ** 2) for j, y in enumerate(deltas) if j != i)
        scores.append(sum(squares[: max(len(deltas) - f - 2, 1)]))
    return scores


def multi_krum(deltas: Array, f: int, m: int) -> Array:
    vectors = [delta.astype(np.float64) for delta in deltas]
    scores = krum_scores(vectors, f)
    best = sorted(range(len(vectors)), key=lambda i: (scores[i], i))[:m]
    return np.mean([vectors[i] for i in best], axis=0)


def krum(deltas: Array, f: int) -> Array:
    return multi_krum(deltas, f, 1)


def bulyan_selection(deltas: Array, f: int) -> list[int]:
    left = list(range(len(deltas)))
    selection: list[int] = []
    while len(selection) < len(deltas) - 2 * f:
        scores = krum_scores([deltas[i].astype(np.float64) for i in left], f)
        best = min(range(len(left)), key=lambda i: (scores[i], i))
        selection.append(left.pop(best))
    return selection


def bulyan(deltas: Array, f: int) -> Array:
    selection = deltas[bulyan_selection(deltas, f)].astype(np.float64)
    result = []
    for column in selection.T:
        center = np.median(column)
        closest = sorted(column, key=lambda value: (abs(value - center), value))
        result.append(np.mean(closest[: len(selection) - 2 * f]))
    return np.array(result)


def norm(vector: Array) -> float:
    return float(np.sqrt(np.sum(vector.astype(np.float64) ** 2)))


def weiszfeld(deltas: Array, weights: Array, v: Array, nu: float, iterations: int) -> Array:
    """From v on, in coordinates."""
    vectors = [delta.astype(np.float64) for delta in deltas]
    for _ in range(iterations):
        beta = [alpha / max(nu, norm(v - x)) for alpha, x in zip(weights, vectors, strict=True)]
        v = sum(b * x for b, x in zip(beta, vectors, strict=True)) / sum(beta)
    return v


def centered_clipping(deltas: Array, v: Array, radius: float, iterations: int) -> Array:
    vectors = [delta.astype(np.float64) for delta in deltas]
    for _ in range(iterations):
        steps = []
        for x in vectors:
            distance = norm(x - v)
            steps.append((x - v) * (min(1.0, radius / distance) if distance > 0 else 1.0))
        v = v + sum(steps) / len(vectors)
    return v
