"""Krum: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine
Tolerant Gradient Descent", NeurIPS 2017 (arXiv:1703.02757), section 4.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.distances import squared_distances
from fedtrain.strategies.parameters import whole
from fedtrain.strategies.strategy import Array, Facts, Needs, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Krum(Strategy):
    """d = d_i with i = argmin s(i), s(i) = sum over the n - f - 2 closest j of ||d_i - d_j||².

    f, the Byzantine participants that are put up with, is `byzantine`; the paper asks for
    2f + 2 < n. Of equal scores the first participant's counts (the paper: the smallest
    identifier). Sample weights do not count.
    """

    name: ClassVar[str] = "Krum"
    needs: ClassVar[Needs] = Needs.PRODUCTS
    byzantine: int = whole(1, least=0)

    @property
    def minimum(self) -> int:
        """2f + 3."""
        return 2 * self.byzantine + 3

    def scores(self, facts: Facts) -> Array:
        """(K,): the smaller, the closer to its neighbours."""
        assert facts.products is not None
        assert len(facts.weights) >= self.minimum, "the caller keeps to the minimum"
        return krum_scores(squared_distances(facts.products), self.byzantine)

    def coefficients(self, facts: Facts) -> Array:
        """1 for the one that is selected."""
        scores = self.scores(facts)
        coefficients = np.zeros(len(scores))
        coefficients[np.argmin(scores)] = 1.0
        return coefficients

    def buffer_weights(self, facts: Facts, coefficients: Array) -> Array:
        """The buffers of whom the coefficients select, in the same proportion."""
        return coefficients


def krum_scores(squared: Array, byzantine: int) -> Array:
    """s(i) for each i: the sum over its n - f - 2 closest others, but one at least.

    Summed from the smallest on, so that equal distances give equal scores. At least one, for
    Bulyan, whose last selections are from too few for the formula.
    """
    others = np.sort(squared, axis=1)[:, 1:]  # the smallest is its own, which is zero
    scores: Array = others[:, : max(len(squared) - byzantine - 2, 1)].sum(axis=1)
    return scores
