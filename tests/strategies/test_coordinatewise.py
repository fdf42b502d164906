"""Median and trimmed mean, and the ordering under them (Bulyan's is in test_selecting.py)."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.strategies import strategy
from fedtrain.strategies.ordering import NETWORK_LIMIT, network, ordered
from tests.strategies import naive
from tests.strategies.rounds_in_memory import reduce_by, updates

SEEDS = st.integers(0, 2**32)


@settings(deadline=None)
@given(seed=SEEDS, participants=st.integers(1, NETWORK_LIMIT + 9))
def test_the_median_is_numpys(seed: int, participants: int) -> None:
    deltas = updates(seed, participants)
    result = reduce_by({"name": "Median"}, deltas)
    assert np.allclose(result, naive.median(deltas), rtol=1e-6, atol=1e-7)
    assert participants % 2 == 0 or np.array_equal(result, np.median(deltas, axis=0))


@settings(deadline=None)
@given(seed=SEEDS, trim=st.integers(0, 5), more=st.integers(0, NETWORK_LIMIT))
def test_the_trimmed_mean_is_the_mean_of_what_is_left(seed: int, trim: int, more: int) -> None:
    deltas = updates(seed, 2 * trim + 1 + more)
    result = reduce_by({"name": "TrimmedMean", "trim": trim}, deltas)
    assert np.allclose(result, naive.trimmed_mean(deltas, trim), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", range(1, 11))
def test_the_network_sorts_every_sequence_of_zeros_and_ones(count: int) -> None:
    """Which suffices for every sequence of anything (Knuth's 0-1 principle)."""
    rows = np.array(list(product((0, 1), repeat=count)), np.float32).T.copy()
    expected = np.sort(rows, axis=0)
    assert np.array_equal(ordered(list(rows)), expected)


@pytest.mark.parametrize("count", [17, 33, NETWORK_LIMIT, NETWORK_LIMIT + 1, 300])
def test_many_rows_are_ordered_as_numpy_orders_them(count: int) -> None:
    rows = updates(1, count, size=5000)
    expected = np.sort(rows, axis=0)
    assert np.array_equal(ordered(list(rows)), expected)


def test_the_network_is_batchers() -> None:
    """TAOCP 3, 5.3.4: 5, 19, 63 and 191 comparators for 4, 8, 16 and 32."""
    assert [len(network(n)) for n in (1, 2, 4, 8, 16, 32)] == [0, 1, 5, 19, 63, 191]


@pytest.mark.parametrize("document", [{"name": "Median"}, {"name": "TrimmedMean"}])
def test_sample_counts_do_not_count(document: dict[str, object]) -> None:
    deltas = updates(6, 5)
    lies = reduce_by(document, deltas, samples=[10**9, 1, 1, 1, 1])
    assert np.array_equal(lies, reduce_by(document, deltas))


@pytest.mark.parametrize("name", ["Median", "TrimmedMean", "Bulyan"])
def test_running_variances_stay_variances(name: str) -> None:
    """Buffers take the same rule, and commute with the base that deltas are relative to."""
    rule = strategy({"name": name})
    variances = np.abs(updates(8, 8)) + np.float32(0.01)
    coefficients = np.full(8, 1 / 8)
    whole = rule.combine(variances.copy(), coefficients)
    assert np.all(whole >= variances.min(axis=0))
    base = np.float32(1.0)
    moved = base + rule.combine(variances - base, coefficients)
    assert np.allclose(moved, whole, atol=1e-6)


@pytest.mark.parametrize("name", ["Median", "TrimmedMean", "Bulyan"])
def test_no_zero_is_negative(name: str) -> None:
    """Which of two zeros a comparison puts first differs between machines, and so would bytes."""
    stack = np.where(np.arange(7)[:, None] % 2, np.float32(0.0), np.float32(-0.0)).repeat(9, axis=1)
    result = strategy({"name": name}).combine(stack, np.full(7, 1 / 7))
    assert not np.signbit(result).any()
