"""FedAvg: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of
Deep Networks from Decentralized Data", AISTATS 2017 (arXiv:1602.05629), Algorithm 1.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from fedtrain.strategies.mean import weighted_mean

Array = np.ndarray[Any, Any]


class FedAvg:
    """The weighted mean of the participants' models: w_{t+1} = sum_k (n_k / n) w_{t+1}^k.

    Here an update is a delta d_k = w_{t+1}^k - w_t, and sum_k n_k / n = 1, so that this is the
    same as w_{t+1} = w_t + sum_k (n_k / n) d_k. n sums over the accepted participants.
    """

    def reduce(self, deltas: Iterable[Array], weights: Array) -> Array:
        """d = sum_k (n_k / n) d_k."""
        return weighted_mean(deltas, weights)

    def step(self, base: Array, delta: Array) -> Array:
        """w_{t+1} = w_t + d."""
        return np.add(base, delta, out=delta)
