"""FedAvgM: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification", 2019 (arXiv:1909.06335), section 4.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Array, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM(Strategy):
    """Server momentum: v ← β v + d, w ← w + η v, with d = sum_k (n_k / n) d_k.

    The paper's signs are the other way round (Δw = -d, w ← w - v), and its η is 1.
    """

    name: ClassVar[str] = "FedAvgM"
    learning_rate: float = number(1.0, above=0)
    momentum: float = number(0.9, least=0, below=1)

    @property
    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0}

    def step(self, base: Array, delta: Array, slots: Mapping[str, Array]) -> Array:
        """v ← β v + d; w ← w + η v."""
        v = slots["momentum"]
        np.multiply(v, self.momentum, out=v)
        np.add(v, delta, out=v)
        np.multiply(v, self.learning_rate, out=delta)
        return np.add(base, delta, out=delta)
