"""The sums: as accurate as promised, with the same bits however they are cut and grouped."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.aggregation.inmemory import mean_of
from fedtrain.aggregation.sums import GROUP, exponent_of, sum_of, widened

PRECISIONS = ("Float32", "Float64", "Exact")
DTYPES = ("F32", "BF16", "F16")
PROMISED = 3e-7
"""Error of the sum over the norm of sum w|delta|."""


def as_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype])


def in_fp64(value: np.ndarray) -> np.ndarray:
    """What the bits mean, by another way than the code under test."""
    if value.dtype == np.uint16:
        return np.frombuffer(
            b"".join(b"\0\0" + int(bits).to_bytes(2, "little") for bits in value), "<f4"
        ).astype(np.float64)
    return value.astype(np.float64)


def deltas(dtype: str, participants: int, count: int, seed: int = 0) -> list[np.ndarray]:
    """Updates that agree on nothing, over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-6, 0, count)
    return [as_dtype(scale * rng.normal(size=count), dtype) for _ in range(participants)]


def weights_of(participants: int, seed: int = 0) -> list[float]:
    """Sum 1, as uneven as data sets are."""
    drawn = np.random.default_rng(seed).lognormal(4, 2, participants) + 50
    return [float(weight) for weight in drawn / drawn.sum()]


def summed(
    values: Sequence[np.ndarray], weights: Sequence[float], precision: str = "Float32"
) -> np.ndarray:
    absmax = max(float(np.abs(in_fp64(value)).max(initial=0.0)) for value in values)
    running = sum_of(precision)
    running.start(values[0].size, exponent_of(absmax))
    for value, weight in zip(values, weights, strict=True):
        running.add(value, weight)
    return running.result().copy()


def error(values: Sequence[np.ndarray], weights: Sequence[float], found: np.ndarray) -> float:
    """Relative to the norm of sum w|delta|."""
    terms = [in_fp64(value) * weight for value, weight in zip(values, weights, strict=True)]
    size = float(np.linalg.norm(np.sum(np.abs(terms), axis=0)))
    return float(np.linalg.norm(found - np.sum(terms, axis=0))) / size if size else 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("precision", PRECISIONS)
@given(participants=st.integers(1, 50), count=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_error_is_within_the_promise(
    precision: str, dtype: str, participants: int, count: int, seed: int
) -> None:
    values = deltas(dtype, participants, count, seed)
    weights = weights_of(participants, seed)
    assert error(values, weights, summed(values, weights, precision)) <= PROMISED


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_is_within_the_promise_for_256_participants(dtype: str) -> None:
    values, weights = deltas(dtype, 256, 20_000), weights_of(256)
    errors = {p: error(values, weights, summed(values, weights, p)) for p in PRECISIONS}
    assert errors["Float32"] <= PROMISED
    rounding_of_the_result = 6e-8
    assert errors["Float64"] <= rounding_of_the_result
    assert errors["Exact"] <= rounding_of_the_result
    assert errors["Float64"] < errors["Float32"]


def test_partial_sums_err_less_than_one_long_sum() -> None:
    values = [np.full(1000, 0.1, np.float32)] * 256
    weights = [1 / 256] * 256
    one_long_sum = np.zeros(1000, np.float32)
    for value, weight in zip(values, weights, strict=True):
        one_long_sum += value * np.float32(weight)
    ours = error(values, weights, summed(values, weights))
    assert ours < error(values, weights, one_long_sum) / 2


@given(participants=st.integers(1, 40), count=st.integers(1, 33), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_bf16_in_pairs_gives_the_bits_of_widening_first(
    participants: int, count: int, seed: int
) -> None:
    values, weights = deltas("BF16", participants, count, seed), weights_of(participants, seed)
    wide = [in_fp64(value).astype(np.float32) for value in values]
    assert summed(values, weights).tobytes() == summed(wide, weights).tobytes()


@given(
    kinds=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=40),
    count=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_dtypes_may_be_mixed_in_one_sum(kinds: list[str], count: int, seed: int) -> None:
    values = [deltas(dtype, 1, count, seed + n)[0] for n, dtype in enumerate(kinds)]
    wide = [in_fp64(value).astype(np.float32) for value in values]
    weights = weights_of(len(kinds), seed)
    assert summed(values, weights).tobytes() == summed(wide, weights).tobytes()


@given(
    participants=st.integers(1, 40),
    count=st.integers(1, 20),
    dtype=st.sampled_from(DTYPES),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=50, deadline=None)
def test_exact_has_the_same_bits_in_any_order(
    participants: int, count: int, dtype: str, chance: random.Random
) -> None:
    values, weights = deltas(dtype, participants, count), weights_of(participants)
    order = list(range(participants))
    chance.shuffle(order)
    again = summed([values[k] for k in order], [weights[k] for k in order], "Exact")
    assert again.tobytes() == summed(values, weights, "Exact").tobytes()


@given(
    participants=st.integers(2, 40),
    count=st.integers(1, 20),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=50, deadline=None)
def test_exact_has_the_same_bits_in_any_grouping(
    participants: int, count: int, chance: random.Random
) -> None:
    """As a hierarchy of aggregators groups them: the groups' integers are added at the end."""
    values, weights = deltas("F32", participants, count), weights_of(participants)
    exponent = exponent_of(max(float(np.abs(value).max()) for value in values))
    groups = [sum_of("Exact") for _ in range(chance.randint(1, participants))]
    for group in groups:
        group.start(count, exponent)
    for value, weight in zip(values, weights, strict=True):
        chance.choice(groups).add(value, weight)
    top = sum_of("Exact")
    top.start(count, exponent)
    for group in groups:
        top._total += group._total  # type: ignore[attr-defined]
    assert top.result().tobytes() == summed(values, weights, "Exact").tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("participants", [1, GROUP, GROUP + 1])
def test_zeros_sum_to_zero(precision: str, dtype: str, participants: int) -> None:
    values = [as_dtype(np.zeros(5), dtype)] * participants
    assert not summed(values, weights_of(participants), precision).any()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_sum_of_nothing_is_zero_even_after_another_sum(precision: str) -> None:
    running = sum_of(precision)
    running.start(3)
    running.add(np.ones(3, np.float32), 1.0)
    running.result()
    running.start(3)
    assert running.result().tolist() == [0, 0, 0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-9, 1.0, 1e30, 3.4e38])
def test_one_participant_gets_its_own_values_back(precision: str, size: float) -> None:
    value = np.array([size, -size, size / 2, 0.0]).astype(np.float32)
    assert summed([value], [1.0], precision).tobytes() == value.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_promise_holds_at_either_end_of_the_range(precision: str, size: float) -> None:
    values = [value * np.float32(size) for value in deltas("F32", 40, 100)]
    weights = weights_of(40)
    assert error(values, weights, summed(values, weights, precision)) <= PROMISED


def test_subnormals_are_summed_to_the_last_of_their_bits() -> None:
    values = [np.array([k * 2.0**-149, 1e-45], np.float32) for k in range(1, 9)]
    last = 2.0**-149
    for precision in ("Float64", "Exact"):
        found = summed(values, [1 / 8] * 8, precision)
        assert abs(float(found[0]) - 4.5 * last) <= last / 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fp16_subnormals_keep_their_values(precision: str) -> None:
    value = np.array([1, 0x03FF, 0x8001, 0x7BFF], np.uint16).view(np.float16)
    assert summed([value], [1.0], precision).tolist() == [float(x) for x in value]


@given(absmax=st.floats(1e-45, 3.5e38))
def test_the_scale_of_exact_uses_62_bits_and_no_more(absmax: float) -> None:
    assert 2.0**61 <= math.ldexp(absmax, exponent_of(absmax)) < 2.0**62


def test_exact_does_not_overflow_at_its_largest() -> None:
    value = np.array([3.4028235e38, -3.4028235e38], np.float32)
    found = summed([value] * 256, [1 / 256] * 256, "Exact")
    assert found.tobytes() == value.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("precision", ["Float32", "Float64"])
def test_what_is_not_finite_is_passed_on_without_a_warning(precision: str, dtype: str) -> None:
    value = as_dtype(np.array([np.inf, np.nan, 1.0]), dtype)
    running = sum_of(precision)
    running.start(3)
    running.add(value, 0.5)
    running.add(value, 0.5)
    assert np.isfinite(running.result()).tolist() == [False, False, True]


def test_a_wide_value_is_its_own_widening() -> None:
    value = np.ones(3, np.float32)
    assert widened(value, np.empty(0, np.float32)) is value


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'Float16' is not one of Float32, Float64, Exact"):
        sum_of("Float16")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_neither_threads_nor_the_cut_into_pieces_change_a_bit(
    precision: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, weights = deltas(dtype, 20, 5000), weights_of(20)
    updates = [{"a": value.reshape(50, 100), "b": value[:7], "c": value[:0]} for value in values]
    whole = mean_of(updates, weights, precision=precision)
    assert error(values, weights, whole["a"].reshape(-1)) <= PROMISED
    assert whole["a"].shape == (50, 100)
    assert whole["c"].size == 0
    for nbytes, threads in ((4, 1), (60, 3), (1 << 12, 2)):
        monkeypatch.setattr("fedtrain.aggregation.inmemory.PIECE_BYTES", nbytes)
        again = mean_of(updates, weights, threads, precision)
        assert {name: array.tobytes() for name, array in again.items()} == {
            name: array.tobytes() for name, array in whole.items()
        }
