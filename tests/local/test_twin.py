"""The federation agrees with a deliberately naive FedAvg (McMahan et al. 2017, Algorithm 1)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

pytestmark = pytest.mark.processes

Model = dict[str, np.ndarray]


def fedavg(model: Model, deltas: list[Model], samples: list[int]) -> Model:
    """w ← w + Σ n_k/n Δ_k, in fp64 and in no particular hurry."""
    result = {name: value.astype(np.float64) for name, value in model.items()}
    for delta, n in zip(deltas, samples, strict=True):
        for name in result:
            result[name] += n / sum(samples) * delta[name].astype(np.float64)
    return result


def trained(model: Model, part: int) -> tuple[Model, int]:
    """What the script of the federation does, written down once more in fp64."""
    rng = np.random.default_rng(part)
    x = rng.normal(size=(20 + 10 * part, 3))
    y = x @ np.array([1.0, -2.0, 3.0]) + 0.5 + 0.1 * part
    w, b = model["w"].copy(), model["b"].copy()
    for _ in range(5):
        error = x @ w + b - y
        w, b = w - 0.1 * x.T @ error / len(y), b - 0.1 * error.mean()
    return {"w": w - model["w"], "b": b - model["b"]}, len(y)


def distance(one: Model, other: Model) -> float:
    """The largest relative distance of a tensor, by its norm."""
    assert one.keys() == other.keys()
    return max(
        float(np.linalg.norm(one[name] - other[name]) / np.linalg.norm(other[name])) for name in one
    )


def test_round_by_round_the_accepted_updates_give_the_next_global_model(undisturbed: Any) -> None:
    models = [_model(undisturbed, record) for record in undisturbed.records]
    for number, record in enumerate(undisturbed.records[1:], start=1):
        accepted = [p for p in record["status"]["participants"] if p["state"] == "Accepted"]
        deltas = [
            safetensors.load_file(
                _folder(undisturbed)
                / f"updates/{p['name']}/{number}/{p['attempt']}/update.safetensors"
            )
            for p in accepted
        ]
        expected = fedavg(models[number - 1], deltas, [p["samples"] for p in accepted])
        assert len(deltas) == 3
        assert distance(models[number], expected) < 1e-6


def test_free_running_on_a_linear_model_the_twin_agrees_after_ten_rounds(undisturbed: Any) -> None:
    twin: Model = {"w": np.zeros(3), "b": np.zeros(1)}
    for _ in range(10):
        updates = [trained(twin, part) for part in range(3)]
        twin = fedavg(twin, [delta for delta, _ in updates], [n for _, n in updates])
    assert distance(safetensors.load_file(undisturbed.model), twin) < 1e-5


def _folder(federation: Any) -> Path:
    return Path(federation.out, "exchange", federation.status["globalModel"]["path"]).parents[3]


def _model(federation: Any, record: dict[str, Any]) -> Model:
    path = record["status"]["globalModel"]["path"]
    loaded: Model = safetensors.load_file(federation.out / "exchange" / path)
    return loaded
