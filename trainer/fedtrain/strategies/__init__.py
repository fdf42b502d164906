"""One file per strategy, named as in the papers; `strategy` finds it and reads its parameters.

A strategy sees parameters only: floating buffers take a mean (or the coordinatewise rule) and
never a step, integers the maximum. `norm_bound` is a guard that goes with each of them.
"""

from collections.abc import Mapping
from typing import Any

from fedtrain.strategies.bulyan import Bulyan
from fedtrain.strategies.centeredclipping import CenteredClipping
from fedtrain.strategies.diloco import DiLoCo
from fedtrain.strategies.fedadagrad import FedAdagrad
from fedtrain.strategies.fedadam import FedAdam
from fedtrain.strategies.fedavg import FedAvg
from fedtrain.strategies.fedavgm import FedAvgM
from fedtrain.strategies.fednova import FedNova
from fedtrain.strategies.fedprox import FedProx
from fedtrain.strategies.fedyogi import FedYogi
from fedtrain.strategies.geometricmedian import GeometricMedian
from fedtrain.strategies.krum import Krum
from fedtrain.strategies.median import Median
from fedtrain.strategies.multikrum import MultiKrum
from fedtrain.strategies.parameters import read
from fedtrain.strategies.scaffold import Scaffold
from fedtrain.strategies.strategy import Array, Facts, Needs, Strategy
from fedtrain.strategies.trimmedmean import TrimmedMean

__all__ = ["STRATEGIES", "Array", "Facts", "Needs", "Strategy", "strategy"]

STRATEGIES: Mapping[str, type[Strategy]] = {
    kind.name: kind
    for kind in (
        FedAvg,
        FedProx,
        Scaffold,
        FedNova,
        FedAvgM,
        FedAdam,
        FedYogi,
        FedAdagrad,
        DiLoCo,
        Median,
        TrimmedMean,
        Krum,
        MultiKrum,
        Bulyan,
        GeometricMedian,
        CenteredClipping,
    )
}


def strategy(document: Mapping[str, Any]) -> Strategy:
    """{"name": "FedAdam", "learningRate": 0.01, ...} → that strategy; what is missing defaults.

    Raises ValueError, in one sentence, for a name or a parameter that this version does not know.
    """
    name = document.get("name")
    kind = STRATEGIES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"strategy.name: {name!r} is not one of {', '.join(STRATEGIES)}")
    return read(kind, document)
