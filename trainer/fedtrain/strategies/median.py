"""Coordinatewise median: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning:
Towards Optimal Statistical Rates", ICML 2018 (arXiv:1803.01498), Definition 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedtrain.strategies.ordering import middle, ordered, unsigned_zeros
from fedtrain.strategies.strategy import Array, Facts, Strategy, uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class Median(Strategy):
    """d_j = median {d_kj : k}; of an even number, the mean of the two in the middle.

    Sample weights do not count: whoever lies about a gradient lies about them, too.
    """

    name: ClassVar[str] = "Median"
    coordinatewise: ClassVar[bool] = True

    def coefficients(self, facts: Facts) -> Array:
        """1 / K each: everybody is in the median."""
        return uniform(facts)

    def combine(self, stack: Array, coefficients: Array) -> Array:
        """The median of each column."""
        return unsigned_zeros(middle(ordered(list(stack))))
