"""FedProx: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous
Networks", MLSys 2020 (arXiv:1812.06127), Algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedtrain.strategies.parameters import number
from fedtrain.strategies.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProx(Strategy):
    """Each participant minimises h_k(w; w_t) = F_k(w) + (μ/2) ||w - w_t||²; the server: FedAvg.

    The proximal term is the participants' business: the SDK offers it to the script. The weights
    are n_k / n over the accepted: the paper samples devices with probability n_k / n and takes
    their plain mean, which has the same expectation.
    """

    name: ClassVar[str] = "FedProx"
    mu: float = number(0.01, least=0)
