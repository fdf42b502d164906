"""FedNova and SCAFFOLD: what the server makes of how far each participant went."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.length import Length
from fedtrain.strategies import Array, strategy
from tests.strategies import naive
from tests.strategies.rounds_in_memory import facts_of, initial, reduced, updates

SEEDS = st.integers(0, 2**32)


@settings(deadline=None, max_examples=40)
@given(
    steps=st.integers(1, 9),
    rate=st.sampled_from([0.01, 0.2]),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    mu=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_a_norm_is_the_sum_of_the_coefficients_magnitudes(
    steps: int, rate: float, momentum: float, mu: float
) -> None:
    length = Length(mu)
    for _ in range(steps):
        length.step(rate, momentum)
    a = naive.coefficients(steps, rate, momentum, mu)
    if (a >= 0).all():
        assert length.norm == pytest.approx(np.abs(a).sum())


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, participants=st.integers(1, 9))
def test_fednova_normalises_each_update_by_its_norm(seed: int, participants: int) -> None:
    rng = np.random.default_rng(seed)
    deltas, base = updates(seed, participants), updates(seed + 1, 1)[0]
    samples = rng.integers(1, 1000, participants)
    norms = rng.uniform(1, 40, participants)
    rule = strategy({"name": "FedNova"})
    lengths = (0.03 * norms).tolist()
    coefficients = rule.coefficients(facts_of(rule, deltas, samples=samples, lengths=lengths))
    ours = base + coefficients @ deltas.astype(np.float64)
    theirs = naive.fednova(base, deltas, samples / samples.sum(), norms.tolist())
    assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert coefficients.sum() >= 1 - 1e-9


def test_of_equal_norms_fednova_is_fedavg() -> None:
    deltas, samples = updates(1, 5), [1, 2, 3, 4, 5]
    ours = reduced(strategy({"name": "FedNova"}), deltas, samples)
    assert np.array_equal(ours, reduced(strategy({"name": "FedAvg"}), deltas, samples))


@settings(deadline=None, max_examples=40)
@given(
    seed=SEEDS,
    invited=st.integers(1, 4),
    absent=st.integers(0, 3),
    eta=st.sampled_from([0.5, 1.0]),
)
def test_scaffolds_server_forms_the_changes_of_control_variates_itself(
    seed: int, invited: int, absent: int, eta: float
) -> None:
    """Quadratics of random optima and steps; what the server does from deltas and lengths alone."""
    rng = np.random.default_rng(seed)
    everybody, rate = invited + absent, 0.1
    optima = rng.normal(size=(everybody, 7))
    twin = naive.Scaffold(np.zeros(7), everybody, eta)
    rule = strategy({"name": "SCAFFOLD", "learningRate": eta})
    slots, model = initial(rule, 7), np.zeros(7, np.float32)
    for _ in range(4):
        there = rng.choice(everybody, invited, replace=False)
        steps = {i: int(rng.integers(1, 9)) for i in there}
        gradients = {i: (lambda y, i=i: y - optima[i]) for i in there}
        deltas = np.array([_moved(twin, i, optima[i], steps[i], rate) for i in there])
        lengths = [steps[i] * rate for i in there]
        facts = facts_of(rule, deltas.astype(np.float32), lengths=lengths)
        facts = type(facts)(weights=facts.weights, lengths=facts.lengths, population=everybody)
        sums = rule.slot_sums(facts)["control"]
        slots["control"][:] = sums[:-1] @ deltas + sums[-1] * slots["control"]
        delta = (rule.coefficients(facts) @ deltas).astype(np.float32)
        model = rule.step(model, delta, slots)
        twin.round(gradients, steps, rate, there)
        assert np.allclose(slots["control"], twin.c, atol=1e-5)
        assert np.allclose(model, twin.x, atol=1e-5)


def _moved(twin: naive.Scaffold, i: int, optimum: Array, steps: int, rate: float) -> Array:
    """A participant's delta: SGD on its quadratic, corrected."""
    corrected = naive.sgd(lambda y: y - optimum - twin.own[i] + twin.c, twin.x, steps, rate)
    return corrected - twin.x
