"""Bulyan of Krum: El Mhamdi, Guerraoui, Rouault, "The Hidden Vulnerability of Distributed Learning
in Byzantium", ICML 2018 (arXiv:1802.07927), section 4.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.distances import squared_distances
from fedtrain.strategies.krum import krum_scores
from fedtrain.strategies.ordering import mean, middle, ordered, unsigned_zeros
from fedtrain.strategies.parameters import whole
from fedtrain.strategies.strategy import Array, Facts, Needs, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulyan(Strategy):
    """S: θ = n - 2f times Krum's choice among those not yet chosen; then, coordinate by coordinate,
    the mean of the β = θ - 2f values of S that are closest to the median of S.

    f is `byzantine`; n is at least 4f + 3. The last choices are among fewer than Krum is defined
    for; there a score takes one neighbour at least, and with one the two that are closest to each
    other always tie. Of equal scores the first participant's counts; of values equally close to
    the median the smaller. Sample weights do not count.
    """

    name: ClassVar[str] = "Bulyan"
    needs: ClassVar[Needs] = Needs.PRODUCTS
    coordinatewise: ClassVar[bool] = True
    byzantine: int = whole(1, least=0)

    @property
    def minimum(self) -> int:
        return 4 * self.byzantine + 3

    def coefficients(self, facts: Facts) -> Array:
        """1 / θ for each in S."""
        assert facts.products is not None
        assert len(facts.weights) >= self.minimum, "the caller keeps to the minimum"
        squared = squared_distances(facts.products)
        left = np.arange(len(squared))
        theta = len(left) - 2 * self.byzantine
        coefficients = np.zeros(len(left))
        for _ in range(theta):
            scores = krum_scores(squared[np.ix_(left, left)], self.byzantine)
            chosen = int(np.argmin(scores))
            coefficients[left[chosen]] = 1 / theta
            left = np.delete(left, chosen)
        return coefficients

    def combine(self, stack: Array, coefficients: Array) -> Array:
        """The mean around the median of each column of S."""
        rows = ordered([row for row, c in zip(stack, coefficients, strict=True) if c])
        return unsigned_zeros(_mean_around(rows, middle(rows), len(rows) - 2 * self.byzantine))

    def buffer_weights(self, facts: Facts, coefficients: Array) -> Array:
        """The mean over S."""
        return coefficients


def _mean_around(rows: list[Array], center: Array, count: int) -> Array:
    """The mean of the `count` values that are closest to the center; rows are in order.

    These are neighbours in the order. From one window to the next the smallest value goes and a
    larger one comes, which is right as long as the one that comes is closer; once it is not, it
    never is again.
    """
    result = mean(rows[:count])
    for start in range(1, len(rows) - count + 1):
        comes, goes = rows[start + count - 1], rows[start - 1]
        closer = comes - center < center - goes
        np.copyto(result, mean(rows[start : start + count]), where=closer)
    return result
