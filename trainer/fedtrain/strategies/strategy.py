"""What a strategy is: coefficients of the accepted deltas, then one step of the server.

Everything here is a pure function of arrays. A linear rule says by which coefficients the deltas
are summed, and never sees them; a coordinatewise rule combines a stack of them, piece by piece.
Both may ask for measurements (`needs`) that are taken of all deltas before any is summed.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedtrain.strategies.mean import weighted_mean

Array = np.ndarray[Any, Any]


class Needs(enum.Flag):
    """What has to be measured before the fold."""

    NOTHING = 0
    PRODUCTS = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the accepted updates, in participant order, in fp64.

    Measured of their deltas, parameters only, after norm bounding. weights: (K,), n_k / n, sum 1.
    products: (K, K), the inner products; (K+1, K+1) with the tensor of the strategy's `center`
    slot as last row, if it has one. lengths: (K,), how far each went by its receipt, η ‖a‖₁ of
    `fedtrain.length`, if the strategy `counts_steps`. population: participants of the training.
    """

    weights: Array
    products: Array | None = None
    lengths: Array | None = None
    population: int = 0


def uniform(facts: Facts) -> Array:
    """1 / K each, for rules that do not count samples."""
    return np.full(len(facts.weights), 1 / len(facts.weights))


class Strategy:
    """FedAvg's behaviour, from which each strategy departs where its paper does.

    needs: what `Facts` must hold. coordinatewise: `combine` takes the place of a weighted sum.
    center: the slot that takes part in products and sums as a further, last update. counts_steps:
    receipts must say how far their participants went.
    """

    __slots__ = ()

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs.NOTHING
    coordinatewise: ClassVar[bool] = False
    center: ClassVar[str | None] = None
    counts_steps: ClassVar[bool] = False

    @property
    def minimum(self) -> int:
        """The fewest accepted updates for which the rule is defined."""
        return 1

    @property
    def slots(self) -> Mapping[str, float]:
        """The server's state, one tensor like each parameter: value before the first round."""
        return {}

    def coefficients(self, facts: Facts) -> Array:
        """fp64 (K,), with `center` (K+1,): delta = sum_k c_k d_k; 0 for who is not selected."""
        return facts.weights

    def slot_sums(self, facts: Facts) -> Mapping[str, Array]:
        """Of slots that are sums of deltas, too: fp64 (K+1,), slot ← sum_k c_k d_k + c_K slot.

        That is done before `step`, which gets the slots as they are then.
        """
        return {}

    def combine(self, stack: Array, coefficients: Array) -> Array:
        """fp32 (K, n) → (n,): the delta of one piece, of a parameter or a floating buffer, if
        coordinatewise; may reorder the stack.

        Rows with coefficient 0 are not selected, whatever they hold.
        """
        return weighted_mean(stack, coefficients.astype(np.float32))

    def buffer_weights(self, facts: Facts, coefficients: Array) -> Array:
        """fp64 (K,), sum 1: by which floating buffers are averaged, unless coordinatewise."""
        return facts.weights

    def step(self, base: Array, delta: Array, slots: Mapping[str, Array]) -> Array:
        """The next global model's piece: w ← w + d; the server's optimizers do more.

        Flat fp32 arrays of one piece; changes the slots' in place, may overwrite the others.
        """
        return np.add(base, delta, out=delta)
