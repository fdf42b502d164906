"""The papers' rules in the most obvious way: fp64, loops over vectors, no inner products."""

from collections.abc import Callable, Collection, Mapping

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


Gradient = Callable[[Array], Array]


def sgd(gradient: Gradient, x: Array, steps: int, rate: float, momentum: float = 0.0) -> Array:
    """Where plain SGD gets to, with torch's momentum."""
    y, velocity = x.copy(), np.zeros_like(x)
    for _ in range(steps):
        velocity = momentum * velocity + gradient(y)
        y = y - rate * velocity
    return y


def coefficients(steps: int, rate: float, momentum: float, mu: float) -> Array:
    """a of Wang et al. 2020: what the gradient of each step comes to in the end, over the rate."""

    def reached(k: int) -> float:
        y = velocity = 0.0
        for step in range(steps):
            velocity = momentum * velocity + (step == k) + mu * y
            y -= rate * velocity
        return -y / rate

    return np.array([reached(k) for k in range(steps)])


def fednova(x: Array, deltas: Array, p: Array, norms: list[float]) -> Array:
    """Algorithm 1: normalised gradients d_i = delta_i / norm_i, then τ_eff of them."""
    normalised = [
        delta.astype(np.float64) / norm for delta, norm in zip(deltas, norms, strict=True)
    ]
    effective = sum(weight * norm for weight, norm in zip(p, norms, strict=True))
    return x + effective * sum(w * d for w, d in zip(p, normalised, strict=True))


class Scaffold:
    """Algorithm 1 of Karimireddy et al. 2020, option II, as it is printed."""

    def __init__(self, x: Array, participants: int, global_rate: float = 1.0) -> None:
        self.x, self.global_rate = x.astype(np.float64), global_rate
        self.c = np.zeros_like(self.x)
        self.own = [np.zeros_like(self.x) for _ in range(participants)]

    def round(
        self,
        gradients: Mapping[int, Gradient],
        steps: Mapping[int, int],
        rate: float,
        accepted: Collection[int],
    ) -> None:
        """One round of these participants, of whom some are accepted."""
        moves, changes = [], []
        for i in accepted:
            y = self.x.copy()
            for _ in range(steps[i]):
                y = y - rate * (gradients[i](y) - self.own[i] + self.c)
            after = self.own[i] - self.c + (self.x - y) / (steps[i] * rate)
            moves.append(y - self.x)
            changes.append(after - self.own[i])
            self.own[i] = after
        self.x = self.x + self.global_rate * np.mean(moves, axis=0)
        self.c = self.c + np.sum(changes, axis=0) / len(self.own)
