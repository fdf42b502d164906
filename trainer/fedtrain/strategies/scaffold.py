"""SCAFFOLD: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled
Averaging for Federated Learning", ICML 2020 (arXiv:1910.06378), Algorithm 1, option II.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Array, Facts, Strategy, uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold(Strategy):
    """x ← x + (η_g / |S|) sum_S d_i;  c ← c + (1/N) sum_S (c_i⁺ − c_i), N: all participants.

    A participant's own steps are y ← y − η (g − c_i + c), see `fedtrain.control`, and option II has
    c_i⁺ − c_i = −c − d_i / (K_i η), which the server forms itself: no more than d_i travels. K_i η
    is `lengths`. As in the paper, sample weights do not count: Σ (c − c_i) would not be zero.
    """

    name: ClassVar[str] = "SCAFFOLD"
    counts_steps: ClassVar[bool] = True
    learning_rate: float = number(1.0, above=0)

    @property
    def slots(self) -> Mapping[str, float]:
        return {"control": 0.0}

    def coefficients(self, facts: Facts) -> Array:
        """1 / |S| each."""
        return uniform(facts)

    def buffer_weights(self, facts: Facts, coefficients: Array) -> Array:
        """The plain mean."""
        return coefficients

    def slot_sums(self, facts: Facts) -> Mapping[str, Array]:
        """c ← (1 − |S| / N) c − sum_S d_i / (N K_i η)."""
        assert facts.lengths is not None
        count = len(facts.weights)
        everybody = max(facts.population, count)
        own = -1 / (everybody * facts.lengths)
        return {"control": np.append(own, 1 - count / everybody)}

    def step(self, base: Array, delta: Array, slots: Mapping[str, Array]) -> Array:
        """x ← x + η_g d; c has its next value already."""
        np.multiply(delta, self.learning_rate, out=delta)
        return np.add(base, delta, out=delta)
