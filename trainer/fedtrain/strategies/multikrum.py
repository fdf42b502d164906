"""Multi-Krum: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", NeurIPS 2017 (arXiv:1703.02757), section 5.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtrain.strategies.krum import Krum
from fedtrain.strategies.parameters import whole
from fedtrain.strategies.strategy import Array, Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiKrum(Krum):
    """d = (1/m) sum of the m deltas with the smallest Krum scores; m is `selected`.

    m is n - f unless given, and never more: n is the number of accepted updates, which varies
    from round to round. Of equal scores the first participants' count. Sample weights do not.
    """

    name: ClassVar[str] = "MultiKrum"
    selected: int | None = whole(None, least=1, says=", or null for all but `byzantine`")

    def coefficients(self, facts: Facts) -> Array:
        """1 / m for each that is selected."""
        scores = self.scores(facts)
        most = len(scores) - self.byzantine
        m = most if self.selected is None else min(self.selected, most)
        coefficients = np.zeros(len(scores))
        coefficients[np.argsort(scores, kind="stable")[:m]] = 1 / m
        return coefficients
