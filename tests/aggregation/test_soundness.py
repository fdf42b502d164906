"""The look at every value: cheap, and as strict as a naive one in fp64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.aggregation.soundness import LARGEST, Refused, squares_of
from fedtrain.aggregation.units import ROW


def looked_at(values: np.ndarray, cut: int) -> float:
    """In pieces of `cut` rows."""
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, values.size, cut * ROW):
            total = squares_of(values[start : start + cut * ROW], "w", total)
    return total


@settings(deadline=None, max_examples=50)
@given(count=st.integers(0, 5 * ROW), exponent=st.integers(-140, 55), seed=st.integers(0, 2**20))
def test_the_sum_of_squares_is_the_naive_one_at_every_magnitude(
    count: int, exponent: int, seed: int
) -> None:
    values = np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)
    values = np.ldexp(values, exponent)
    naive = float((values.astype(np.float64) ** 2).sum())
    assert looked_at(values, 2) == pytest.approx(naive, rel=1e-5, abs=0)


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 9 * ROW), cut=st.integers(1, 8), seed=st.integers(0, 2**20))
def test_how_much_is_read_at_once_changes_no_bit(count: int, cut: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    assert looked_at(values, cut) == looked_at(values, 9)


@pytest.mark.parametrize("at", [0, ROW - 1, ROW, 2 * ROW + 5])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, "NotFinite"),
        (np.inf, "NotFinite"),
        (-np.inf, "NotFinite"),
        (1.01 * LARGEST, "TooLarge"),
        (-3e38, "TooLarge"),
    ],
)
def test_one_bad_value_anywhere_is_found(at: int, value: float, reason: str) -> None:
    values = np.full(2 * ROW + 6, LARGEST, np.float32)
    looked_at(values, 1)
    values[at] = value
    with pytest.raises(Refused) as refused:
        looked_at(values, 1)
    assert refused.value.reason == reason
