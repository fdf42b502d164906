"""Sums of low-rank products against the SVD of the whole matrix in fp64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.aggregation import lowrank
from tests.adapters.conftest import best


def terms_of(ranks, out=9, within=7, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.random(len(ranks)) + 0.1
    return [
        (float(w / weights.sum()), rng.normal(size=(out, r)), rng.normal(size=(r, within)))
        for w, r in zip(weights, ranks, strict=True)
    ]


def dense(terms):
    return sum(weight * (b @ a) for weight, b, a in terms)


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    rank=st.integers(1, 12),
    out=st.integers(1, 12),
    within=st.integers(1, 12),
    seed=st.integers(0, 999),
)
def test_a_sum_is_the_best_approximation_of_the_whole_matrix(ranks, rank, out, within, seed):
    terms = terms_of(ranks, out, within, seed)
    b, a = lowrank.summed(terms, np.ones((rank, within)))
    assert b.shape == (out, rank)
    assert a.shape == (rank, within)
    whole = dense(terms)
    np.testing.assert_allclose(b @ a, best(whole, rank), atol=1e-9 * np.linalg.norm(whole))


@pytest.mark.parametrize("count", [1, 3])
def test_directions_are_sorted_and_a_is_orthonormal(count):
    b, a = lowrank.summed(terms_of([3] * count), np.zeros((3, 7)))
    lengths = np.linalg.norm(b, axis=0)
    assert (np.diff(lengths) <= 0).all()
    np.testing.assert_allclose(a @ a.T, np.eye(3), atol=1e-12)
    assert (a.max(axis=1) >= -a.min(axis=1)).all(), "the largest number of a row is positive"


def test_one_participant_s_product_comes_back_as_it_is():
    ((weight, b, a),) = terms_of([4])
    found = lowrank.summed([(weight, b, a)], np.zeros((4, 7)))
    np.testing.assert_allclose(found[0] @ found[1], b @ a, atol=1e-12)


def test_a_zero_b_keeps_the_previous_a_so_that_gradients_flow():
    previous = np.arange(21.0).reshape(3, 7)
    terms = [(w, np.zeros_like(b), a) for w, b, a in terms_of([3, 2])]
    b, a = lowrank.summed(terms, previous)
    assert not b.any()
    assert np.array_equal(a, previous)


def test_a_direction_that_nobody_has_keeps_its_row_of_the_previous_a():
    previous = np.arange(35.0).reshape(5, 7)
    b, a = lowrank.summed(terms_of([2]), previous)
    assert b[:, :2].all()
    assert not b[:, 2:].any()
    assert np.array_equal(a[2:], previous[2:])


def test_the_whole_matrix_is_never_formed():
    """One of 200,000 × 200,000 would have 320 GB."""
    rng = np.random.default_rng(0)
    terms = [(0.5, rng.normal(size=(200_000, r)), rng.normal(size=(r, 200_000))) for r in (1, 2)]
    b, a = lowrank.summed(terms, np.zeros((3, 200_000)))
    assert lowrank.relative([lowrank.residual(b, a, terms)]) < 1e-12


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_residual_is_that_of_the_whole_matrices(rank):
    terms = terms_of([3, 4])
    b, a = lowrank.summed(terms, np.zeros((rank, 7)))
    difference, whole = lowrank.residual(b, a, terms)
    assert difference == pytest.approx(np.linalg.norm(b @ a - dense(terms)), rel=1e-9)
    assert whole == pytest.approx(np.linalg.norm(dense(terms)), rel=1e-12)


def test_residuals_of_layers_add_up_as_those_of_one_matrix():
    assert lowrank.relative([(3.0, 6.0), (4.0, 8.0)]) == pytest.approx(0.5)
    assert lowrank.relative([(0.0, 0.0)]) == 0.0
