"""Adapters in small: pairs of factors drawn from a seed, and what they come to, naively."""

from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]
LAYERS = {"q": (24, 18), "v": (12, 18)}
"""Layer → (out, in)."""


def an_adapter(rank: int, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """fp32 factors of each layer, of which B is not zero, and a bias that has no pair."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {"head.bias": rng.normal(size=5)}
    for layer, (out, within) in LAYERS.items():
        arrays[f"{layer}.lora_A.weight"] = rng.normal(size=(rank, within))
        arrays[f"{layer}.lora_B.weight"] = rng.normal(size=(out, rank))
    return {name: (scale * array).astype(np.float32) for name, array in arrays.items()}


def loaded(adapter: Arrays, rank: int) -> dict[str, np.ndarray]:
    """What a participant of this rank sees of it."""
    part = {}
    for name, array in adapter.items():
        part[name] = array[:rank] if "lora_A" in name else array
        part[name] = part[name][:, :rank] if "lora_B" in name else part[name]
    return part


def product(adapter: Arrays, layer: str) -> np.ndarray:
    """out × in, fp64: what is never formed elsewhere."""
    a, b = (adapter[f"{layer}.lora_{factor}.weight"].astype(np.float64) for factor in "AB")
    return b @ a


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of this rank, by the SVD of the whole matrix."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]
