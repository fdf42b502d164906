"""FedAdagrad: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295),
Algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.adaptive import LARGEST, Adaptive
from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdagrad(Adaptive):
    """m ← β1 m + (1-β1) d; v ← v + d²; w ← w + η m / (√v + τ)."""

    name: ClassVar[str] = "FedAdagrad"
    beta1: float = number(0.0, least=0, below=1)

    def second_moment(self, v: Array, square: Array) -> None:
        """v ← v + d², up to where another square would overflow."""
        np.add(v, square, out=v)
        np.minimum(v, LARGEST**2, out=v)
