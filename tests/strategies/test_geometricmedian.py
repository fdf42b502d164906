"""The geometric median by inner products is the one in coordinates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.strategies import Array, strategy
from tests.strategies import naive
from tests.strategies.rounds_in_memory import facts_of, reduce_by, reduced, updates

SEEDS = st.integers(0, 2**32)


def start(deltas: Array, weights: Array, nu: float) -> Array:
    """The weighted mean by α_k / (the α-weighted median of the distances from d_k to all)."""
    beta = []
    for alpha, x in zip(weights, deltas, strict=True):
        pairs = sorted(
            (naive.norm(x.astype(np.float64) - y), w) for y, w in zip(deltas, weights, strict=True)
        )
        below = np.cumsum([w for _, w in pairs])
        distance = pairs[int(np.argmax(below >= 0.5 * below[-1]))][0]
        beta.append(alpha / max(nu, distance))
    total = sum(b * x.astype(np.float64) for b, x in zip(beta, deltas, strict=True))
    return np.asarray(total / sum(beta))


def total_distance(deltas: Array, weights: Array, v: Array) -> float:
    return sum(w * naive.norm(v - x.astype(float)) for w, x in zip(weights, deltas, strict=True))


@settings(deadline=None)
@given(
    seed=SEEDS,
    samples=st.lists(st.integers(1, 1000), min_size=1, max_size=12),
    iterations=st.integers(1, 20),
    epsilon=st.sampled_from([1e-6, 0.1, 3.0]),
)
def test_it_takes_the_same_steps_as_in_coordinates(
    seed: int, samples: list[int], iterations: int, epsilon: float
) -> None:
    deltas = updates(seed, len(samples))
    weights = np.array(samples) / sum(samples)
    document = {"name": "GeometricMedian", "iterations": iterations, "epsilon": epsilon}
    expected = naive.weiszfeld(
        deltas, weights, start(deltas, weights, epsilon), epsilon, iterations
    )
    result = reduce_by(document, deltas, samples=samples)
    assert np.allclose(result, expected, rtol=1e-5, atol=2e-6)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, samples=st.lists(st.integers(1, 9), min_size=3, max_size=8))
def test_it_is_where_a_long_walk_from_the_mean_ends(seed: int, samples: list[int]) -> None:
    """As far from all, in sum, as 3,000 iterations in coordinates from the weighted mean get."""
    deltas = updates(seed, len(samples))
    weights = np.array(samples) / sum(samples)
    mean = weights @ deltas.astype(np.float64)
    expected = naive.weiszfeld(deltas, weights, mean, 1e-6, 3000)
    result = reduce_by({"name": "GeometricMedian", "iterations": 3000}, deltas, samples=samples)
    reached = total_distance(deltas, weights, result)
    assert reached <= total_distance(deltas, weights, expected) * (1 + 1e-6)


def test_whoever_has_most_of_the_weight_is_the_median() -> None:
    deltas = updates(1, 3)
    result = reduce_by({"name": "GeometricMedian"}, deltas, samples=[6, 1, 2])
    assert np.allclose(result, deltas[0], atol=1e-5)


@pytest.mark.parametrize("honest", [2, 3, 6])
def test_less_than_half_of_the_weight_moves_it_no_further_than_the_honest_reach(
    honest: int,
) -> None:
    """||v - d|| <= 2 (1-β) / (1-2β) max ||d_k - d|| over the honest, β the outliers' share
    (Lopuhaä, Rousseeuw 1991; Pillutla et al., Proposition 2).
    """
    for outliers in range(1, honest):
        deltas = updates(honest, honest + outliers)
        center = deltas[:honest].astype(np.float64).mean(axis=0)
        reach = max(naive.norm(delta - center) for delta in deltas[:honest])
        share = outliers / len(deltas)
        deltas[honest:] = np.float32(1e30)
        result = reduce_by({"name": "GeometricMedian"}, deltas)
        assert naive.norm(result - center) <= 2 * (1 - share) / (1 - 2 * share) * reach * 1.001


def test_buffers_are_weighted_like_the_parameters() -> None:
    rule = strategy({"name": "GeometricMedian"})
    deltas = updates(2, 5)
    deltas[3] = 1e30
    facts = facts_of(rule, deltas, samples=[1, 2, 3, 4, 5])
    weights = rule.buffer_weights(facts, rule.coefficients(facts))
    assert weights.sum() == pytest.approx(1)
    assert weights[3] < 1e-25


def test_it_stops_when_nothing_changes_any_more() -> None:
    rule = strategy({"name": "GeometricMedian", "iterations": 10_000})
    deltas = np.ones((4, 3), np.float32)
    assert np.array_equal(reduced(rule, deltas, samples=[1, 1, 2, 4]), deltas[0])
