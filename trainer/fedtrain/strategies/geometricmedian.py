"""Geometric median: Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning", IEEE
Transactions on Signal Processing 70, 2022 (arXiv:1912.13445), Algorithm 2, smoothed Weiszfeld.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.distances import distances_to, squared_distances
from fedtrain.strategies.parameters import number, whole
from fedtrain.strategies.strategy import Array, Facts, Needs, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricMedian(Strategy):
    """d = argmin_v sum_k α_k ||v - d_k||, α_k = n_k / n, by v ← sum_k β_k d_k / sum_k β_k,
    β_k = α_k / max(ν, ||v - d_k||); ν is `epsilon`.

    Every v is a combination of the deltas, so that its coefficients follow from the inner
    products alone, and the deltas are read twice, whatever the number of iterations. The first v
    has ||v - d_k|| replaced by the α-weighted median of d_k's distances to all: there an outlier
    of 1e30 has no weight from the start, while from the mean each iteration takes but a share of
    it away.
    """

    name: ClassVar[str] = "GeometricMedian"
    needs: ClassVar[Needs] = Needs.PRODUCTS
    iterations: int = whole(100, least=1, most=10_000)
    epsilon: float = number(1e-6, least=1e-30)

    def coefficients(self, facts: Facts) -> Array:
        """β_k / sum_k β_k after the last iteration, or the first that changes nothing."""
        assert facts.products is not None
        coefficients = self._weighted(facts.weights, median_distances(facts))
        for _ in range(self.iterations):
            last = coefficients
            coefficients = self._weighted(facts.weights, distances_to(facts.products, last))
            if np.array_equal(coefficients, last):
                break
        return coefficients

    def _weighted(self, alpha: Array, distances: Array) -> Array:
        beta: Array = alpha / np.maximum(distances, self.epsilon)
        coefficients: Array = beta / beta.sum()
        return coefficients

    def buffer_weights(self, facts: Facts, coefficients: Array) -> Array:
        """The same: who is far from the others in the parameters weighs little here, too."""
        return coefficients


def median_distances(facts: Facts) -> Array:
    """(K,): from each delta to all, itself included, the median by weight."""
    assert facts.products is not None
    distances = np.sqrt(squared_distances(facts.products))
    order = np.argsort(distances, axis=1, kind="stable")
    below = np.cumsum(facts.weights[order], axis=1)
    at = np.argmax(below >= 0.5 * below[:, -1:], axis=1)
    each = np.arange(len(order))
    return np.asarray(distances[each, order[each, at]])
