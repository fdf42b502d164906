"""What a codec may change about a parameter, by how much, and what it refuses to decode."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.codecs import BFloat16, Codec, Int8, TopK, codec, update_schema, widened
from fedtrain.layout import numpy_dtype
from fedtrain.schema import Schema, TensorSpec

CODECS: list[Codec] = [
    BFloat16(),
    Int8(64),
    Int8(),
    Int8(4096),
    TopK(0.01, 1024),
    TopK(0.07, 3000),
    TopK(1.0, 2048),
    TopK(),
]
every_codec = pytest.mark.parametrize("one", CODECS, ids=lambda one: json.dumps(one.document))
seeds = st.integers(0, 2**32 - 1)
counts = st.one_of(st.integers(0, 300), st.integers(0, 20_000))


def deltas(seed: int, count: int) -> Any:
    """Of magnitudes that differ from place to place, with exact zeros and ties among them."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=count) * 10.0 ** draw.uniform(-30, 20)
    values *= draw.choice([0.0, 1e-6, 1.0], size=count, p=[0.2, 0.2, 0.6])
    if draw.random() < 0.3:
        values = np.sign(values) * np.abs(values).max(initial=0)
    return values.astype(np.float32)


def there_and_back(one: Codec, values: Any) -> Any:
    return widened(one.decode(one.encode(values), values.size))


@every_codec
@settings(deadline=None)
@given(seed=seeds, count=counts)
def test_parts_have_the_shapes_and_dtypes_that_the_parameter_alone_says(
    one: Codec, seed: int, count: int
) -> None:
    parts = one.parts((count,))
    for part, values in zip(parts, one.encode(deltas(seed, count)), strict=True):
        assert values.dtype == numpy_dtype(part.dtype)
        assert values.shape == part.shape


@every_codec
@settings(deadline=None)
@given(seed=seeds, count=counts, cut=st.integers(0, 20))
def test_a_run_that_begins_at_a_unit_is_encoded_and_decoded_as_within_the_whole(
    one: Codec, seed: int, count: int, cut: int
) -> None:
    values = deltas(seed, count)
    at = min(cut * (one.unit or 17), count // (one.unit or 1) * (one.unit or 1))
    whole = one.encode(values)
    runs = []
    for start, stop in ((0, at), (at, count)):
        encoded = one.encode(values[start:stop])
        places = [one.part_range(part, start, stop) for part in range(len(whole))]
        for mine, parts, (first, last) in zip(encoded, whole, places, strict=True):
            assert np.array_equal(mine, parts[first:last])
        pieces = tuple(
            parts[first:last] for parts, (first, last) in zip(whole, places, strict=True)
        )
        runs.append(widened(one.decode(pieces, stop - start)))
    assert np.array_equal(np.concatenate(runs), widened(one.decode(whole, count)))


@every_codec
def test_zeros_and_nothing_at_all_survive(one: Codec) -> None:
    for count in (0, 1, 5000):
        assert not there_and_back(one, np.zeros(count, np.float32)).any()
    assert [part.shape for part in BFloat16().parts(())] == [()]


@settings(deadline=None)
@given(seed=seeds, count=counts)
def test_bf16_is_torchs_rounding_half_to_even(seed: int, count: int) -> None:
    values = deltas(seed, count)
    values[::3] = (values[::3].view(np.uint32) & 0xFFFF0000 | 0x8000).view(np.float32)  # ties
    values[~np.isfinite(values)] = 0
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(there_and_back(BFloat16(), values), expected)


@settings(deadline=None)
@given(seed=seeds, count=counts)
def test_bf16_is_exact_on_what_bf16_can_hold_and_else_within_half_its_last_place(
    seed: int, count: int
) -> None:
    values = deltas(seed, count)
    back = there_and_back(BFloat16(), values)
    assert np.array_equal(there_and_back(BFloat16(), back), back)
    normal = np.abs(values) > 1.2e-38
    assert (np.abs(back - values)[normal] <= np.abs(values)[normal] * 2.0**-8).all()


@settings(deadline=None)
@given(seed=seeds, count=counts, block=st.sampled_from([64, 256, 4096]))
def test_int8_is_off_by_at_most_half_a_step_of_its_block(seed: int, count: int, block: int) -> None:
    values = deltas(seed, count)
    back = there_and_back(Int8(block), values)
    for start in range(0, count, block):
        mine = values[start : start + block].astype(np.float64)
        step = np.abs(mine).max() / 127
        worst = np.abs(back[start : start + block] - mine).max()
        assert worst <= 0.5001 * step + 1e-44  # half a subnormal, where fp32 has no finer step


def test_int8_rounds_half_to_even_and_is_symmetrical() -> None:
    values = np.zeros(64, np.float32)
    values[:6] = [127, 0.5, 1.5, -0.5, -1.5, -2.5]
    whole, scales = Int8(64).encode(values)
    assert whole[:6].tolist() == [127, 0, 2, 0, -2, -2]
    assert scales.tolist() == [1.0]
    assert Int8(64).encode(-values)[0].tolist() == (-whole).tolist()


@pytest.mark.parametrize(("block", "least", "most"), [(64, 5e-3, 7e-3), (256, 6e-3, 8e-3)])
def test_int8_of_deltas_costs_less_than_a_hundredth_of_them(
    block: int, least: float, most: float
) -> None:
    values = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32) * 1e-3
    error = np.linalg.norm(there_and_back(Int8(block), values) - values)
    assert least <= error / np.linalg.norm(values) <= most


def naive_topk(values: Any, fraction: float, block: int) -> Any:
    out = np.zeros_like(values)
    for start in range(0, values.size, block):
        mine = values[start : start + block]
        k = int(np.ceil(fraction * mine.size))
        order = sorted(range(mine.size), key=lambda place: (-abs(mine[place]), place))[:k]
        for place in order:
            out[start + place] = mine[place]
    return out


@settings(deadline=None)
@given(seed=seeds, count=st.integers(0, 5000), fraction=st.floats(0.001, 1))
def test_topk_keeps_the_largest_of_each_block_and_the_first_of_equals(
    seed: int, count: int, fraction: float
) -> None:
    values = deltas(seed, count)
    back = there_and_back(TopK(fraction, 1024), values)
    assert np.array_equal(back, naive_topk(values, fraction, 1024))


def test_of_equals_the_first_travel() -> None:
    _, indices = TopK(0.01, 1024).encode(np.ones(1024, np.float32))
    assert indices.tolist() == list(range(11))


HOSTILE_INDICES = {
    "not sorted, or one comes twice": [5, 5, *range(6, 15)],
    "sorted": [7, 6, *range(8, 17)],
    "beyond its block of 1000": [*range(10), 1000],
}


@pytest.mark.parametrize(("sentence", "indices"), HOSTILE_INDICES.items())
def test_indices_that_no_encoder_makes_are_refused(sentence: str, indices: list[int]) -> None:
    one = TopK(0.011, 1024)  # the last block, of 1000, keeps 11
    places = np.array(indices, np.uint16).view(np.int16)
    with pytest.raises(ValueError, match=sentence):
        one.decode((np.ones(11, np.float32), places), 1000)


def test_an_index_of_more_than_fifteen_bits_is_no_negative_number() -> None:
    values = np.zeros(65536, np.float32)
    values[-656:] = 1
    back = there_and_back(TopK(), values)
    assert np.array_equal(back, values)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0, -0.0])
def test_scales_that_no_encoder_makes_are_refused(scale: float) -> None:
    whole, scales = Int8(64).encode(np.ones(130, np.float32))
    scales[1] = scale
    with pytest.raises(ValueError, match="scale"):
        Int8(64).decode((whole, scales), 130)


def test_the_number_that_int8_has_only_below_zero_is_refused() -> None:
    whole, scales = Int8(64).encode(np.ones(64, np.float32))
    whole[3] = -128
    with pytest.raises(ValueError, match="symmetrical"):
        Int8(64).decode((whole, scales), 64)


@every_codec
def test_parts_of_another_length_are_refused(one: Codec) -> None:
    parts = one.encode(np.ones(5000, np.float32))
    for number in range(len(parts)):
        for wrong in (parts[number][:-1], np.concatenate([parts[number], parts[number][:1]])):
            with pytest.raises(ValueError, match="not"):
                one.decode((*parts[:number], wrong, *parts[number + 1 :]), 5000)


@every_codec
def test_a_codec_says_itself_how_it_is_read(one: Codec) -> None:
    assert codec(json.loads(json.dumps(one.document))) == one


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"name": "Zip"}, "'Zip' is no codec"),
        ({}, "None is no codec"),
        ({"name": "BFloat16", "block": 64}, "no parameter 'block'"),
        ({"name": "Int8", "block": 100}, "not a power of two"),
        ({"name": "Int8", "block": 32}, "not from 64 to 4096"),
        ({"name": "Int8", "block": True}, "not from"),
        ({"name": "Int8", "fraction": 0.1}, "no parameter 'fraction'"),
        ({"name": "TopK", "block": 65537}, "not from 1024 to 65536"),
        ({"name": "TopK", "fraction": 0}, "above 0"),
        ({"name": "TopK", "fraction": float("nan")}, "above 0"),
        ({"name": "TopK", "fraction": "1"}, "above 0"),
    ],
)
def test_a_document_that_names_no_codec_is_refused_in_a_sentence(
    document: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        codec(document)


def test_parameters_travel_in_parts_and_everything_else_as_it_is() -> None:
    schema = Schema.of(
        [
            TensorSpec(name="w", dtype="F32", shape=(10, 100), aliases=("tied",)),
            TensorSpec(name="mean", dtype="F32", shape=(3,), kind="buffer"),
            TensorSpec(name="steps", dtype="I64", shape=(), kind="integer"),
        ]
    )
    assert codec(None) is None

    def held(one: Codec | None) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(spec.name, spec.dtype, spec.shape) for spec in update_schema(schema, one).tensors]

    rest = [("mean", "F32", (3,)), ("steps", "I64", ())]
    assert held(None) == [*rest, ("w", "F32", (10, 100))]
    assert held(BFloat16()) == [*rest, ("w", "BF16", (10, 100))]
    assert held(Int8()) == [*rest, ("w", "I8", (10, 100)), ("w:scales", "F32", (4,))]
    assert held(TopK()) == [*rest, ("w", "F32", (10,)), ("w:indices", "I16", (10,))]
