"""FedAvg: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of
Deep Networks from Decentralized Data", AISTATS 2017 (arXiv:1602.05629), Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedtrain.strategies.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg(Strategy):
    """The weighted mean of the participants' models: w_{t+1} = sum_k (n_k / n) w_{t+1}^k.

    Here an update is a delta d_k = w_{t+1}^k - w_t, and sum_k n_k / n = 1, so that this is the
    same as w_{t+1} = w_t + sum_k (n_k / n) d_k. n sums over the accepted participants.
    """

    name: ClassVar[str] = "FedAvg"
