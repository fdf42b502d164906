"""Centered clipping by inner products is the loop over vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.strategies import strategy
from tests.strategies import naive
from tests.strategies.rounds_in_memory import facts_of, initial, reduced, updates


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    participants=st.integers(1, 12),
    iterations=st.integers(1, 5),
    radius=st.sampled_from([0.3, 3.0, 8.0, 1e3]),
)
def test_it_is_the_loop_over_vectors_for_several_rounds(
    seed: int, participants: int, iterations: int, radius: float
) -> None:
    rule = strategy({"name": "CenteredClipping", "radius": radius, "iterations": iterations})
    slots = initial(rule, 33)
    v = np.zeros(33)
    model = np.zeros(33, np.float32)
    for round_number in range(4):
        deltas = updates(seed + round_number, participants)
        v = naive.centered_clipping(deltas, v, radius, iterations)
        delta = reduced(rule, deltas, slots=slots)
        assert np.allclose(delta, v, rtol=1e-5, atol=1e-5)
        expected = model + delta
        model = rule.step(model, delta, slots)
        assert np.array_equal(model, expected)
        assert np.allclose(slots["center"], v, rtol=1e-5, atol=1e-5)


def test_it_moves_no_further_than_the_radius_each_time_whatever_comes() -> None:
    rule = strategy({"name": "CenteredClipping", "radius": 2.0, "iterations": 3})
    slots = {"center": updates(1, 1)[0]}
    deltas = np.full((5, 33), 1e30, np.float32)
    result = reduced(rule, deltas, slots=slots)
    assert naive.norm(result - slots["center"]) <= 3 * 2.0 * 1.001


def test_an_update_at_the_center_and_one_at_the_radius_are_taken_as_they_are() -> None:
    rule = strategy({"name": "CenteredClipping", "radius": 5.0})
    slots = {"center": np.float32([1, 1])}
    deltas = np.float32([[1, 1], [4, 5]])
    assert np.allclose(reduced(rule, deltas, slots=slots), [2.5, 3])


def test_sample_counts_do_not_count_and_the_clipped_weigh_less_in_buffers() -> None:
    rule = strategy({"name": "CenteredClipping", "radius": 1.0})
    deltas = np.float32([[1, 0], [0, 1], [0, 4]])
    facts = facts_of(rule, deltas, samples=[1, 1, 98])
    coefficients = rule.coefficients(facts)
    assert list(coefficients) == pytest.approx([1 / 3, 1 / 3, 1 / 12, 1 / 4])
    weights = rule.buffer_weights(facts, coefficients)
    assert list(weights) == pytest.approx([4 / 9, 4 / 9, 1 / 9])
