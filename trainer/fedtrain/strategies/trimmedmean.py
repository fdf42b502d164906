"""Trimmed mean: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards
Optimal Statistical Rates", ICML 2018 (arXiv:1803.01498), Definition 2.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedtrain.strategies.ordering import mean, ordered, unsigned_zeros
from fedtrain.strategies.parameters import whole
from fedtrain.strategies.strategy import Array, Facts, Strategy, uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmedMean(Strategy):
    """d_j = the mean of {d_kj : k} without its b largest and b smallest; b = `trim`.

    The paper's β is b / K. Sample weights do not count, as in the paper.
    """

    name: ClassVar[str] = "TrimmedMean"
    coordinatewise: ClassVar[bool] = True
    trim: int = whole(1, least=0)

    @property
    def minimum(self) -> int:
        """2b + 1, so that one value is left."""
        return 2 * self.trim + 1

    def coefficients(self, facts: Facts) -> Array:
        """1 / K each: who is trimmed differs from coordinate to coordinate."""
        return uniform(facts)

    def combine(self, stack: Array, coefficients: Array) -> Array:
        """The trimmed mean of each column."""
        assert len(stack) >= self.minimum, "the caller keeps to the minimum"
        kept = ordered(list(stack))[self.trim : len(stack) - self.trim]
        return unsigned_zeros(mean(kept))
