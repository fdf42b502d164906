"""FedProx's client term, which holds a participant near the global model w_t that it began with:

    h(w) = F(w) + μ/2 ‖w − w_t‖²        ∇h(w) = ∇F(w) + μ (w − w_t)

Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2. μ comes from the
federation's strategy; with μ = 0 nothing is copied and nothing is added.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fedtrain.errors import ContractError

UNUSED = (
    "the strategy has a proximal term, and nothing was pulled by it: pass optimizer= to "
    "rounds(...), or add rnd.proximal_term() to the loss; with arrays, add rnd.gradient_terms() to "
    "the gradients"
)


class Proximal(Protocol):
    """The term for one round, around the w_t that it begins with."""

    asked: bool
    """Whether the script used it."""

    mu: float

    def term(self) -> Any:
        """A scalar tensor with a gradient, of a torch model."""

    def gradients(self) -> dict[str, Any]:
        """By name, of a mapping of arrays."""


class ArrayProximal:
    """For numpy arrays, which have no gradients: the term's own is given by name.

    begin: w_t of those arrays that the term is over; of every other one it is zero.
    """

    def __init__(self, arrays: Mapping[str, Any], mu: float, begin: Mapping[str, Any]) -> None:
        self.asked = False
        self.mu = mu
        self._arrays = arrays
        self._begin = begin

    def term(self) -> Any:
        sentence = "rnd.proximal_term() is for torch; use rnd.gradient_terms() for arrays"
        raise ContractError("ModelUnsupported", sentence)

    def gradients(self) -> dict[str, Any]:
        self.asked = True
        return {
            name: np.asarray(self.mu * (array - self._begin[name]), array.dtype)
            if name in self._begin
            else np.zeros_like(array)
            for name, array in self._arrays.items()
            if array.dtype.kind == "f"
        }
