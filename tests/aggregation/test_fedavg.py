"""The laws of federated averaging (McMahan et al. 2017, Algorithm 1)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain import strategies
from fedtrain.aggregation.sums import GROUP, sum_of
from fedtrain.strategies import Facts
from fedtrain.strategies.fedavg import FedAvg

EPSILON = np.finfo(np.float32).eps


@st.composite
def a_round(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Deltas (participants x elements, fp32) and sample counts."""
    participants = draw(st.integers(1, 2 * GROUP + 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = 10.0 ** draw(st.integers(-9, 6))
    deltas = (scale * rng.normal(size=(participants, 33))).astype(np.float32)
    samples = draw(st.lists(st.integers(1, 10_000), min_size=participants, max_size=participants))
    return deltas, np.array(samples, np.float64)


def mean(deltas: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """As the engine sums it."""
    coefficients = FedAvg().coefficients(Facts(weights=samples / samples.sum()))
    return summed(deltas, coefficients)


def summed(deltas: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    total = sum_of("Float32")
    total.start(deltas.shape[1])
    for delta, coefficient in zip(deltas, coefficients, strict=True):
        total.add(delta, float(coefficient))
    return total.result().copy()


@settings(deadline=None)
@given(a_round())
def test_it_agrees_with_the_naive_twin_in_fp64(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    deltas, samples = drawn
    naive = sum(
        n / samples.sum() * d.astype(np.float64) for n, d in zip(samples, deltas, strict=True)
    )
    scale = (samples / samples.sum()) @ np.abs(deltas.astype(np.float64))
    assert np.all(np.abs(mean(deltas, samples) - naive) <= 1e-6 * scale)


@settings(deadline=None)
@given(a_round())
def test_every_element_lies_between_its_inputs_to_rounding(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    deltas, samples = drawn
    slack = 4 * EPSILON * np.abs(deltas).max(axis=0)
    averaged = mean(deltas, samples)
    assert np.all(averaged >= deltas.min(axis=0) - slack)
    assert np.all(averaged <= deltas.max(axis=0) + slack)


@settings(deadline=None)
@given(a_round())
def test_identical_updates_give_the_base_plus_that_update(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    deltas, samples = drawn
    same = np.broadcast_to(deltas[0], deltas.shape)
    averaged = mean(same, samples)
    assert np.all(np.abs(averaged - deltas[0]) <= 4 * EPSILON * np.abs(deltas[0]))


@settings(deadline=None)
@given(a_round(), st.sampled_from([2.0, 3.0, 10.0, 1024.0]))
def test_only_the_ratios_of_the_sample_counts_matter(
    drawn: tuple[np.ndarray, np.ndarray], factor: float
) -> None:
    deltas, samples = drawn
    assert mean(deltas, samples).tobytes() == mean(deltas, samples * factor).tobytes()


@settings(deadline=None)
@given(a_round())
def test_one_participant_gets_its_own_model_back(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    deltas, samples = drawn
    base = np.linspace(-1, 1, deltas.shape[1]).astype(np.float32)
    alone = mean(deltas[:1], samples[:1])
    assert alone.tobytes() == deltas[0].tobytes()
    assert np.array_equal(FedAvg().step(base, alone.copy(), {}), base + deltas[0])


def test_partial_sums_keep_the_error_of_many_participants_near_one_rounding() -> None:
    rng = np.random.default_rng(3)
    values = rng.uniform(0.5, 1.5, size=(512, 4096)).astype(np.float32)
    weights = np.full(512, 1 / 512)
    exact = values.astype(np.float64).mean(axis=0)
    sequential = np.zeros(4096, np.float32)
    for value in values:
        sequential += value * np.float32(weights[0])
    error = np.abs(summed(values, weights) / exact - 1).max()
    assert error < np.abs(sequential / exact - 1).max() / 2
    assert error < 4e-7


def test_a_strategy_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"strategy\.name: 'FedMagic' is not one of FedAvg,"):
        strategies.strategy({"name": "FedMagic"})
