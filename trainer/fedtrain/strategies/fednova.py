"""FedNova: Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in
Heterogeneous Federated Optimization", NeurIPS 2020 (arXiv:2007.07481), Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Array, Facts, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class FedNova(Strategy):
    """x ← x + τ_eff sum_i p_i d_i / ‖a_i‖₁, with p_i = n_i / n and τ_eff = sum_i p_i ‖a_i‖₁.

    d_i = −η G_i a_i: who took more steps, or more momentum, is not heard the louder for it. Where
    learning rates differ, the lengths η_i ‖a_i‖₁ take the place of the norms, which is the same
    while they do not. μ is of a proximal term as in FedProx, which the norm accounts for.
    """

    name: ClassVar[str] = "FedNova"
    counts_steps: ClassVar[bool] = True
    mu: float = number(0.0, least=0)

    def coefficients(self, facts: Facts) -> Array:
        """p_i τ_eff / ‖a_i‖₁: of equal norms p_i, and their sum is 1 or more."""
        assert facts.lengths is not None
        effective = (facts.weights * facts.lengths).sum()
        coefficients: Array = facts.weights * effective / facts.lengths
        return coefficients
