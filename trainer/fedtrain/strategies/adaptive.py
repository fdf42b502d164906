"""What FedAdam, FedYogi and FedAdagrad have in common: Reddi, Charles, Zaheer, Garrett, Rush,
Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295),
Algorithm 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Array, Strategy

LARGEST = 1e19
"""What a delta counts for in v at most, so that its square stays an fp32 and v never overflows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive(Strategy):
    """m ← β1 m + (1-β1) d; v ← see `second_moment`; w ← w + η m / (√v + τ).

    v starts at τ², and no bias is corrected, as in the paper. d = sum_k (n_k / n) d_k.
    """

    learning_rate: float = number(0.01, above=0)
    beta1: float = number(0.9, least=0, below=1)
    tau: float = number(0.001, least=1e-12)

    @property
    def slots(self) -> Mapping[str, float]:
        return {"m": 0.0, "v": self.tau**2}

    def second_moment(self, v: Array, square: Array) -> None:
        """v of the next round, in place; square is d², and may be overwritten."""
        raise NotImplementedError

    def step(self, base: Array, delta: Array, slots: Mapping[str, Array]) -> Array:
        """m, v and w of the next round."""
        m, v = slots["m"], slots["v"]
        square = np.minimum(np.abs(delta), LARGEST)
        np.multiply(square, square, out=square)
        np.multiply(delta, 1 - self.beta1, out=delta)
        np.multiply(m, self.beta1, out=m)
        np.add(m, delta, out=m)
        self.second_moment(v, square)
        np.sqrt(v, out=square)
        np.add(square, self.tau, out=square)
        np.divide(m, square, out=delta)
        np.multiply(delta, self.learning_rate, out=delta)
        return np.add(base, delta, out=delta)
