"""Norm bounding: Sun, Kairouz, Suresh, McMahan, "Can You Really Backdoor Federated Learning?", 2019
(arXiv:1911.07963), section 4; a guard that goes with any strategy.
"""

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def scales(norms: Array, bound: float) -> Array:
    """fp32 (K,): min(1, M / ||d_k||), by which each delta is multiplied before any strategy.

    norms: L2 over all parameters, fp64. Whoever is within the bound has exactly 1, zero included.
    Raises ValueError, in one sentence, for a bound that is none.
    """
    if not (math.isfinite(bound) and bound > 0):
        raise ValueError(f"strategy.normBound: {bound!r} is no norm; use a number above 0")
    return np.divide(bound, np.maximum(norms, bound)).astype(np.float32)
