"""Krum, Multi-Krum and Bulyan are what their papers say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.strategies import Array, strategy
from tests.strategies import naive
from tests.strategies.rounds_in_memory import facts_of, reduce_by, reduced, updates

SEEDS = st.integers(0, 2**32)


def same(result: Array, naive_result: Array) -> bool:
    return np.allclose(result, naive_result, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(seed=SEEDS, f=st.integers(0, 3), more=st.integers(0, 4))
def test_krum_is_the_one_with_the_closest_neighbours(seed: int, f: int, more: int) -> None:
    deltas = updates(seed, 2 * f + 3 + more)
    result = reduce_by({"name": "Krum", "byzantine": f}, deltas)
    assert np.array_equal(result, naive.krum(deltas, f).astype(np.float32))


@settings(deadline=None)
@given(seed=SEEDS, f=st.integers(0, 3), more=st.integers(0, 4), data=st.data())
def test_multi_krum_is_the_mean_of_the_best(
    seed: int, f: int, more: int, data: st.DataObject
) -> None:
    deltas = updates(seed, 2 * f + 3 + more)
    selected = data.draw(st.none() | st.integers(1, len(deltas) - f))
    result = reduce_by({"name": "MultiKrum", "byzantine": f, "selected": selected}, deltas)
    assert same(result, naive.multi_krum(deltas, f, selected or len(deltas) - f))


def test_multi_krum_never_selects_more_than_all_but_the_byzantine() -> None:
    deltas = updates(0, 7)
    result = reduce_by({"name": "MultiKrum", "byzantine": 2, "selected": 7}, deltas)
    assert same(result, naive.multi_krum(deltas, 2, 5))


@settings(deadline=None)
@given(seed=SEEDS, f=st.integers(0, 3), more=st.integers(0, 4))
def test_bulyan_is_the_papers(seed: int, f: int, more: int) -> None:
    deltas = updates(seed, 4 * f + 3 + more)
    rule = strategy({"name": "Bulyan", "byzantine": f})
    coefficients = rule.coefficients(facts_of(rule, deltas))
    selection = naive.bulyan_selection(deltas, f)
    assert set(np.flatnonzero(coefficients)) == set(selection)
    assert same(reduced(rule, deltas), naive.bulyan(deltas, f))


def test_bulyan_selects_again_after_each_choice() -> None:
    """A pair far away is in nobody's neighbourhood at once, but the last that are left are few."""
    one_shot = [
        set(np.argsort(naive.krum_scores(list(deltas.astype(float)), 2), kind="stable")[:8])
        != set(naive.bulyan_selection(deltas, 2))
        for deltas in (updates(seed, 12) for seed in range(30))
    ]
    assert sum(one_shot) > 10, "so that the law above tells the two apart"


@pytest.mark.parametrize("name", ["Krum", "MultiKrum"])
def test_of_equal_scores_the_first_participant_counts(name: str) -> None:
    a, b = np.float32([1.1, -0.3]), np.float32([-1.1, 0.3])
    for deltas, first in (
        (np.stack([0 * a, b, a, b, a]), 1),
        (np.stack([a, a, a, b, b]), 0),
        (np.stack([b, a, a, b, a]), 1),
        (np.stack([a, b] * 3), 0),
    ):
        rule = strategy({"name": name, **({"selected": 1} if name == "MultiKrum" else {})})
        coefficients = rule.coefficients(facts_of(rule, deltas))
        assert list(np.flatnonzero(coefficients)) == [first]


def test_ties_are_broken_by_the_order_of_participants() -> None:
    deltas = np.zeros((7, 3), np.float32)
    krum = strategy({"name": "Krum"})
    assert list(krum.coefficients(facts_of(krum, deltas))) == [1, 0, 0, 0, 0, 0, 0]
    multi = strategy({"name": "MultiKrum", "selected": 2})
    assert list(multi.coefficients(facts_of(multi, deltas))) == [0.5, 0.5, 0, 0, 0, 0, 0]
    bulyan = strategy({"name": "Bulyan"})
    assert list(bulyan.coefficients(facts_of(bulyan, deltas))) == [0.2] * 5 + [0, 0]


def test_of_values_equally_close_to_the_median_the_smaller_counts() -> None:
    """β = 3 of -2, -1, 0, 1, 2 are no tie; of -2, -2, 0, 1, 2 the smaller -2 wins against 2."""
    rule = strategy({"name": "Bulyan", "byzantine": 1})
    coefficients = np.array([0.2] * 5 + [0.0] * 2)
    column = [-2, -2, 0, 2, 1, 9, -9]
    stack = np.array(column, np.float32).reshape(7, 1)
    assert rule.combine(stack, coefficients)[0] == pytest.approx((-2 + 0 + 1) / 3)


def test_bulyan_does_not_look_at_the_rows_of_the_unselected() -> None:
    rule = strategy({"name": "Bulyan", "byzantine": 1})
    deltas = updates(3, 7)
    coefficients = rule.coefficients(facts_of(rule, deltas))
    expected = rule.combine(deltas.copy(), coefficients)
    deltas[coefficients == 0] = np.nan
    assert np.array_equal(rule.combine(deltas, coefficients), expected)


@pytest.mark.parametrize("name", ["Krum", "MultiKrum", "Bulyan"])
def test_buffers_are_those_of_the_selected(name: str) -> None:
    rule = strategy({"name": name, "byzantine": 1})
    facts = facts_of(rule, updates(5, 8), samples=range(1, 9))
    coefficients = rule.coefficients(facts)
    weights = rule.buffer_weights(facts, coefficients)
    assert weights.sum() == pytest.approx(1)
    assert np.array_equal(weights > 0, coefficients > 0)


@pytest.mark.parametrize("name", ["Krum", "MultiKrum", "Bulyan"])
def test_sample_counts_do_not_count(name: str) -> None:
    deltas = updates(6, 8)
    lies = reduce_by({"name": name}, deltas, samples=[10**9, 1, 1, 1, 1, 1, 1, 1])
    assert np.array_equal(lies, reduce_by({"name": name}, deltas))
