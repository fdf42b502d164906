"""The norm bound: min(1, M / ||d||)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.strategies import norm_bound

NORMS = st.lists(st.floats(0, 1e31), min_size=1, max_size=9).map(np.array)
BOUNDS = st.floats(1e-6, 1e6)


@given(norms=NORMS, bound=BOUNDS)
def test_no_delta_is_longer_than_the_bound_afterwards(norms: np.ndarray, bound: float) -> None:
    scales = norm_bound.scales(norms, bound)
    assert scales.dtype == np.float32
    assert np.all(norms * scales <= bound * (1 + 1e-6))


@given(norms=NORMS, bound=BOUNDS)
def test_whoever_is_within_the_bound_is_left_alone(norms: np.ndarray, bound: float) -> None:
    scales = norm_bound.scales(norms, bound)
    assert np.all((scales == 1) | (norms > bound))
    assert np.all((norms <= bound) | (scales <= 1))


@given(norms=NORMS, one=BOUNDS, other=BOUNDS)
def test_two_bounds_are_the_smaller(norms: np.ndarray, one: float, other: float) -> None:
    first = norm_bound.scales(norms, one)
    both = first * norm_bound.scales(norms * first, other)
    expected = norm_bound.scales(norms, min(one, other))
    assert np.allclose(both, expected, rtol=1e-6, atol=1e-44)


def test_the_scale_by_hand() -> None:
    assert list(norm_bound.scales(np.array([0.0, 1.0, 2.0, 8.0]), 2.0)) == [1, 1, 1, 0.25]


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match=r"^strategy\.normBound: .*use a number above 0$"):
        norm_bound.scales(np.ones(1), bound)
