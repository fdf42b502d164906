"""Flower's FedAvgM, FedMedian and FedTrimmedAvg as oracles, by their public classes.

Not its FedAdam (corrects a bias that the paper does not), Krum (fp32 norms of weights) and Bulyan
(selects in one shot).
"""

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

from benchmarks import peers
from fedtrain.strategies import Array, strategy
from tests.strategies.rounds_in_memory import initial, reduce_by, reduced, updates

pytestmark = pytest.mark.processes  # Flower is downloaded, once

SEEDS = range(20)
app: Any = None
flower: Any = None


@pytest.fixture(autouse=True, scope="module")
def _flower_itself() -> None:
    """Not at import: the quick tests collect this file too."""
    global app, flower
    peers.installed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what they import: not ours to mend
        app = importlib.import_module("flwr.app")
        flower = importlib.import_module("flwr.serverapp.strategy")


class Reply:
    """What a strategy reads of a `Message`, which cannot be made outside a running ServerApp."""

    def __init__(self, model: Array, samples: int) -> None:
        arrays = app.ArrayRecord({"w": app.Array(model)})
        metrics = app.MetricRecord({"num-examples": samples})
        self.content = app.RecordDict({"arrays": arrays, "metrics": metrics})

    def has_error(self) -> bool:
        return False


def aggregated(theirs: object, models: Array, samples: list[int]) -> Array:
    """By one of Flower's strategies, from the clients' models."""
    replies = [Reply(model, count) for model, count in zip(models, samples, strict=True)]
    arrays, _ = theirs.aggregate_train(1, replies)  # type: ignore[attr-defined]
    return np.asarray(arrays["w"].numpy())


def counts(seed: int, participants: int) -> list[int]:
    return [int(n) for n in np.random.default_rng(seed).integers(1, 100, participants)]


@pytest.mark.parametrize("seed", SEEDS)
def test_fedavgm_is_flowers_for_several_rounds(seed: int) -> None:
    eta, beta = 0.5 + seed / 20, 0.5 + seed / 50
    rule = strategy({"name": "FedAvgM", "learningRate": eta, "momentum": beta})
    theirs = flower.FedAvgM(server_learning_rate=eta, server_momentum=beta)
    model = updates(seed, 1)[0]
    theirs.current_arrays = app.ArrayRecord({"w": app.Array(model)})
    slots = initial(rule, 33)
    for round_number in range(5):
        participants = 2 + (seed + round_number) % 7
        deltas = updates(100 * seed + round_number, participants)
        samples = counts(seed, participants)
        flowers = aggregated(theirs, model + deltas, samples)
        model = rule.step(model, reduced(rule, deltas, samples=samples), slots)
        assert np.allclose(model, flowers, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_median_is_flowers(seed: int) -> None:
    deltas = updates(seed, 1 + seed)
    flowers = aggregated(flower.FedMedian(), deltas, counts(seed, len(deltas)))
    assert np.allclose(reduce_by({"name": "Median"}, deltas), flowers, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_trimmed_mean_is_flowers(seed: int) -> None:
    """Flower cuts a share at each end, and rounds what that makes down."""
    trim = seed % 4
    deltas = updates(seed, 2 * trim + 1 + seed)
    theirs = flower.FedTrimmedAvg(beta=(trim + 0.001) / len(deltas))
    flowers = aggregated(theirs, deltas, counts(seed, len(deltas)))
    result = reduce_by({"name": "TrimmedMean", "trim": trim}, deltas)
    assert np.allclose(result, flowers, rtol=1e-5, atol=1e-6)
