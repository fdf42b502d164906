"""FedProx's client term, which holds a participant near the global model w_t that it began with:

    h(w) = F(w) + μ/2 ‖w − w_t‖²        ∇h(w) = ∇F(w) + μ (w − w_t)

Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2. μ comes from the
federation's strategy; with μ = 0 nothing is copied and nothing is added.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from fedtrain.errors import ContractError

UNUSED = (
    "the strategy has a proximal term, and nothing was pulled by it: pass optimizer= to "
    "rounds(...), or add rnd.proximal_term() to the loss; with arrays, add rnd.gradient_terms() to "
    "the gradients"
)


class Proximal(Protocol):
    """The term for one round; made when the model holds w_t, before it is trained."""

    asked: bool
    """Whether the script used it."""

    mu: float

    def term(self) -> Any:
        """A scalar tensor with a gradient, of a torch model."""

    def gradients(self) -> dict[str, Any]:
        """By name, of a mapping of arrays."""


class ArrayProximal:
    """For numpy arrays, which have no gradients: the term's own is given by name."""

    def __init__(
        self, arrays: Mapping[str, Any], mu: float, names: Collection[str] | None = None
    ) -> None:
        self.asked = False
        self.mu = mu
        self._names = names
        self._arrays = arrays
        self._begin = {name: np.copy(array) for name, array in self._floating()} if mu else {}

    def term(self) -> Any:
        sentence = "rnd.proximal_term() is for torch; use rnd.gradient_terms() for arrays"
        raise ContractError("ModelUnsupported", sentence)

    def gradients(self) -> dict[str, Any]:
        self.asked = True
        if not self.mu:
            return {name: np.zeros_like(array) for name, array in self._floating()}
        return {
            name: np.asarray(self.mu * (self._arrays[name] - begin), begin.dtype)
            for name, begin in self._begin.items()
        }

    def _floating(self) -> Iterator[tuple[str, Any]]:
        return (
            (name, array)
            for name, array in self._arrays.items()
            if array.dtype.kind == "f" and (self._names is None or name in self._names)
        )
