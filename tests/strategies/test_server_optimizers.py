"""The server's steps are the papers', their slots too, over several rounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.strategies import Array, strategy
from tests.strategies.rounds_in_memory import initial, updates

ROUNDS = 5
SEEDS = st.integers(0, 2**32)
SCALES = st.sampled_from([1e-6, 1e-3, 1.0, 1e3])


def close(ours: Array, papers: Array) -> bool:
    return bool(np.allclose(ours, papers, rtol=1e-4, atol=1e-6 * np.abs(papers).max()))


@settings(deadline=None)
@given(
    name=st.sampled_from(["FedAdam", "FedYogi", "FedAdagrad"]),
    seed=SEEDS,
    scale=SCALES,
    eta=st.sampled_from([0.01, 0.3]),
    beta1=st.sampled_from([0.0, 0.9]),
    beta2=st.sampled_from([0.9, 0.99]),
    tau=st.sampled_from([1e-3, 1e-1]),
)
def test_the_adaptive_ones_follow_algorithm_2(
    name: str, seed: int, scale: float, eta: float, beta1: float, beta2: float, tau: float
) -> None:
    document = {"name": name, "learningRate": eta, "beta1": beta1, "tau": tau}
    rule = strategy(document if name == "FedAdagrad" else {**document, "beta2": beta2})
    slots = initial(rule, 33)
    deltas = updates(seed, ROUNDS, scale=scale)
    model = updates(seed + 1, 1)[0]
    x, m, v = model.astype(np.float64), np.zeros(33), np.full(33, tau**2)
    for delta in deltas:
        d = delta.astype(np.float64)
        m = beta1 * m + (1 - beta1) * d
        if name == "FedAdam":
            v = beta2 * v + (1 - beta2) * d**2
        elif name == "FedYogi":
            v = v - (1 - beta2) * d**2 * np.sign(v - d**2)
        else:
            v = v + d**2
        x = x + eta * m / (np.sqrt(v) + tau)
        model = rule.step(model, delta.copy(), slots)
        assert close(slots["m"], m)
        assert close(slots["v"], v)
        assert close(model, x)


@settings(deadline=None)
@given(seed=SEEDS, scale=SCALES, beta=st.sampled_from([0.0, 0.5, 0.9]), eta=st.floats(0.1, 2))
def test_fedavgm_is_momentum_on_the_mean(seed: int, scale: float, beta: float, eta: float) -> None:
    rule = strategy({"name": "FedAvgM", "learningRate": eta, "momentum": beta})
    slots = initial(rule, 33)
    model = updates(seed + 1, 1)[0]
    w, v = model.astype(np.float64), np.zeros(33)
    for delta in updates(seed, ROUNDS, scale=scale):
        v = beta * v - delta.astype(np.float64)  # the paper's signs
        w = w - eta * v
        model = rule.step(model, delta.copy(), slots)
        assert close(slots["momentum"], -v)
        assert close(model, w)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, scale=SCALES, momentum=st.sampled_from([0.5, 0.9]), eta=st.floats(0.1, 1))
def test_diloco_is_torchs_nesterov(seed: int, scale: float, momentum: float, eta: float) -> None:
    torch = pytest.importorskip("torch", reason="the extra `trainer` brings torch")
    rule = strategy({"name": "DiLoCo", "learningRate": eta, "momentum": momentum})
    slots = initial(rule, 33)
    model = updates(seed + 1, 1)[0]
    parameter = torch.nn.Parameter(torch.tensor(model))
    optimizer = torch.optim.SGD([parameter], lr=eta, momentum=momentum, nesterov=True)
    for delta in updates(seed, ROUNDS, scale=scale):
        parameter.grad = -torch.tensor(delta)
        optimizer.step()
        model = rule.step(model, delta.copy(), slots)
        torchs = parameter.detach().numpy()
        assert np.allclose(model, torchs, rtol=1e-6, atol=1e-6 * np.abs(torchs).max())


@pytest.mark.parametrize("name", ["FedAvg", "FedProx", "FedAvgM"])
def test_the_first_step_of_the_plain_ones_is_fedavgs(name: str) -> None:
    base, delta = updates(1, 2)
    expected = base + delta
    rule = strategy({"name": name})
    assert np.array_equal(rule.step(base, delta, initial(rule, 33)), expected)


def test_the_first_step_of_fedadam_by_hand() -> None:
    """d = 1: m = 0.1, v = 0.99e-6 + 0.01, w = 0.01 * 0.1 / (√v + 0.001)."""
    rule = strategy({"name": "FedAdam"})
    slots = initial(rule, 1)
    model = rule.step(np.zeros(1, np.float32), np.ones(1, np.float32), slots)
    assert model[0] == pytest.approx(0.001 / (0.01000099**0.5 + 0.001), rel=1e-6)


def test_a_parameter_that_nobody_changes_stays_where_it_is() -> None:
    for name in ("FedAvgM", "FedAdam", "FedYogi", "FedAdagrad", "DiLoCo"):
        rule = strategy({"name": name})
        slots = initial(rule, 4)
        base = updates(1, 1, size=4)[0]
        model = base.copy()
        for _ in range(ROUNDS):
            model = rule.step(model, np.zeros(4, np.float32), slots)
        assert np.array_equal(model, base)
