"""One file per strategy, named as in the papers; `named` finds it.

A strategy is two functions of one tile at a time: *reduce* over the accepted deltas, and the
server's *step* from the base and the reduced delta to the next global model. It sees parameters
only; floating buffers always take the plain weighted mean and integers the maximum.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from fedtrain.strategies.fedavg import FedAvg

Array = np.ndarray[Any, Any]


class Strategy(Protocol):
    """What the fold needs to know of a strategy; arrays are flat and fp32, one tile long."""

    def reduce(self, deltas: Iterable[Array], weights: Array) -> Array:
        """One delta from the accepted ones, which come in participant order.

        deltas: lazily read, each valid until the next is asked for. weights: fp32, sum 1.
        """

    def step(self, base: Array, delta: Array) -> Array:
        """The next global model's tile; both arguments may be overwritten."""


def named(name: str) -> Strategy:
    """Raises ValueError for a strategy that this version does not have."""
    if name == "FedAvg":
        return FedAvg()
    raise ValueError(f"strategy.name: {name!r} is not one of FedAvg")
