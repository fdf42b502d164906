"""DiLoCo: Douillard, Feng, Rusu, Chhaparia, Donchev, Kuncoro, Ranzato, Szlam, Shen, "DiLoCo:
Distributed Low-Communication Training of Language Models", 2023 (arXiv:2311.08105), Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Array, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class DiLoCo(Strategy):
    """Outer Nesterov momentum: v ← μ v + d, w ← w + η (d + μ v).

    The same as torch.optim.SGD(lr=η, momentum=μ, nesterov=True) with -d for the gradient. The
    paper's d is the plain mean of the workers' deltas: `weight: {by: Uniform}`.
    """

    name: ClassVar[str] = "DiLoCo"
    learning_rate: float = number(0.7, above=0)
    momentum: float = number(0.9, least=0, below=1)

    @property
    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0}

    def step(self, base: Array, delta: Array, slots: Mapping[str, Array]) -> Array:
        """v ← μ v + d; w ← w + η (d + μ v)."""
        v = slots["momentum"]
        np.multiply(v, self.momentum, out=v)
        np.add(v, delta, out=v)
        np.add(delta, v * self.momentum, out=delta)
        np.multiply(delta, self.learning_rate, out=delta)
        return np.add(base, delta, out=delta)
