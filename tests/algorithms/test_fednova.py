"""FedNova through the SDK and the aggregator: momentum, a proximal term and unequal steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain import Round
from tests.strategies import naive

pytestmark = pytest.mark.processes

NAMES = ("a", "b", "c")
STEPS = {"a": 2, "b": 9, "c": 4}
SAMPLES = {"a": 10, "b": 30, "c": 5}
RATE = 0.05
Make = Callable[..., Any]


def optimum(name: str) -> np.ndarray:
    return np.random.default_rng(NAMES.index(name)).normal(size=5)


class Quadratic(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(5))
        self._optimum = torch.from_numpy(optimum(name)).float()

    def forward(self) -> torch.Tensor:
        return (self.x - self._optimum).square().sum() / 2


def printed(x: np.ndarray, momentum: float, mu: float) -> np.ndarray:
    """One round, written out in fp64."""
    deltas, norms = [], []
    for name in NAMES:
        y = naive.sgd(
            lambda y, n=name: y - optimum(n) + mu * (y - x), x, STEPS[name], RATE, momentum
        )
        deltas.append(y - x)
        norms.append(np.abs(naive.coefficients(STEPS[name], RATE, momentum, mu)).sum())
    p = np.array([SAMPLES[name] for name in NAMES]) / sum(SAMPLES.values())
    return naive.fednova(x, np.array(deltas), p, norms)


@pytest.mark.parametrize(("momentum", "mu"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.3)])
def test_round_by_round_it_is_algorithm_1(a_training: Make, momentum: float, mu: float) -> None:
    training = a_training(NAMES, name="FedNova", mu=mu).begin(Quadratic("a"))
    x = np.zeros(5)
    for _ in range(3):
        for name in NAMES:
            model = Quadratic(name)

            def body(rnd: Round, model: nn.Module = model, name: str = name) -> None:
                # Made in the body, as one does after wrapping: so it is attached.
                optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=momentum)
                rnd.attach(optimizer)
                for _ in range(STEPS[name]):
                    optimizer.zero_grad()
                    model().backward()
                    optimizer.step()
                rnd.submit(samples=SAMPLES[name])

            receipt = training.train(name, model, body)
            assert receipt.steps == STEPS[name]
        training.aggregate(NAMES)
        x = printed(x, momentum, mu)
        assert training.tensors()["x"] == pytest.approx(x, abs=1e-5)


def test_a_script_of_arrays_says_its_steps_rate_and_momentum(a_training: Make) -> None:
    training = a_training(NAMES, name="FedNova", mu=0.3).begin({"x": np.zeros(5, np.float32)})
    for name in NAMES:
        model = {"x": np.zeros(5, np.float32)}

        def body(rnd: Round, model: Any = model, name: str = name) -> None:
            velocity = np.zeros(5, np.float32)
            for _ in range(STEPS[name]):
                gradient = model["x"] - optimum(name).astype(np.float32)
                velocity = np.float32(0.5) * velocity + gradient + rnd.gradient_terms()["x"]
                model["x"] -= np.float32(RATE) * velocity
            rnd.submit(samples=SAMPLES[name], steps=STEPS[name], learning_rate=RATE, momentum=0.5)

        training.train(name, model, body)
    training.aggregate(NAMES)
    assert training.tensors()["x"] == pytest.approx(printed(np.zeros(5), 0.5, 0.3), abs=1e-5)


def test_who_takes_more_steps_does_not_pull_the_model_to_its_own_optimum() -> None:
    """With small steps the fixed point of FedNova is nearly the optimum of Σ p F; FedAvg's not."""
    p = np.array([SAMPLES[name] for name in NAMES]) / sum(SAMPLES.values())
    best = sum(w * optimum(name) for w, name in zip(p, NAMES, strict=True))
    nova = avg = np.zeros(5)
    for _ in range(400):
        nova = printed(nova, 0.0, 0.0)
        moves = [naive.sgd(lambda y, n=n: y - optimum(n), avg, STEPS[n], RATE) - avg for n in NAMES]
        avg = avg + sum(w * move for w, move in zip(p, moves, strict=True))
    assert np.linalg.norm(nova - best) < np.linalg.norm(avg - best) / 3
