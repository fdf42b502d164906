"""FedAdam: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295),
Algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.adaptive import Adaptive
from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdam(Adaptive):
    """m ← β1 m + (1-β1) d; v ← β2 v + (1-β2) d²; w ← w + η m / (√v + τ)."""

    name: ClassVar[str] = "FedAdam"
    beta2: float = number(0.99, least=0, below=1)

    def second_moment(self, v: Array, square: Array) -> None:
        """v ← β2 v + (1-β2) d²."""
        np.multiply(v, self.beta2, out=v)
        np.multiply(square, 1 - self.beta2, out=square)
        np.add(v, square, out=v)
