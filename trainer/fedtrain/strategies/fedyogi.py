"""FedYogi: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295),
Algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.adaptive import Adaptive
from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FedYogi(Adaptive):
    """m ← β1 m + (1-β1) d; v ← v - (1-β2) d² sign(v - d²); w ← w + η m / (√v + τ)."""

    name: ClassVar[str] = "FedYogi"
    beta2: float = number(0.99, least=0, below=1)

    def second_moment(self, v: Array, square: Array) -> None:
        """v ← v - (1-β2) d² sign(v - d²)."""
        sign = np.sign(v - square)
        np.multiply(square, 1 - self.beta2, out=square)
        np.multiply(square, sign, out=square)
        np.subtract(v, square, out=v)
