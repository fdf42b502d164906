"""Centered clipping: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust
Optimization", ICML 2021 (arXiv:2012.10333), Algorithm 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.distances import distances_to
from fedtrain.strategies.parameters import number, whole
from fedtrain.strategies.strategy import Array, Facts, Needs, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class CenteredClipping(Strategy):
    """v ← v + (1/n) sum_k (d_k - v) min(1, τ / ||d_k - v||), L times; d = v; τ is `radius`.

    v starts at the last round's d, and at zero in the first; L is `iterations`. Every v is a
    combination of the deltas and the last round's, so that its coefficients follow from the inner
    products alone. Sample weights do not count.
    """

    name: ClassVar[str] = "CenteredClipping"
    needs: ClassVar[Needs] = Needs.PRODUCTS
    center: ClassVar[str | None] = "center"
    radius: float = number(10.0, least=1e-30, below=1e30)
    iterations: int = whole(1, least=1, most=10_000)

    @property
    def slots(self) -> Mapping[str, float]:
        return {"center": 0.0}

    def coefficients(self, facts: Facts) -> Array:
        """(K+1,): of the deltas, and of the last round's v."""
        assert facts.products is not None
        count = len(facts.weights)
        coefficients = np.zeros(count + 1)
        coefficients[-1] = 1.0
        for _ in range(self.iterations):
            distances = distances_to(facts.products, coefficients)[:count]
            share = self.radius / np.maximum(distances, self.radius) / count
            coefficients *= max(1.0 - share.sum(), 0.0)
            coefficients[:count] += share
        return coefficients

    def buffer_weights(self, facts: Facts, coefficients: Array) -> Array:
        """In the proportion of the deltas' coefficients: who is clipped weighs less."""
        own = coefficients[: len(facts.weights)]
        weights: Array = own / own.sum()
        return weights

    def step(self, base: Array, delta: Array, slots: Mapping[str, Array]) -> Array:
        """v is kept for the next round; w ← w + v."""
        np.copyto(slots["center"], delta)
        return np.add(base, delta, out=delta)
