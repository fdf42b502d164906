"""Encoded updates that no encoder makes, by the codec that they claim."""

import json
import struct
from collections.abc import Mapping
from typing import Any

from tests.aggregation.hostile.forgery import Case, Forgery, Spoil, cases
from tests.aggregation.hostile.headers import entry
from tests.aggregation.hostile.layouts import also
from tests.aggregation.hostile.receipts import says
from tests.aggregation.hostile.values import holds

BFLOAT16: Mapping[str, Any] = {"name": "BFloat16"}
INT8: Mapping[str, Any] = {"name": "Int8", "block": 64}
TOPK: Mapping[str, Any] = {"name": "TopK", "fraction": 0.1, "block": 1024}


def bits(tensor: str, value: int, element: int = 0) -> Spoil:
    """16 bits of an element: of a bf16, or of an index."""
    return lambda forgery: forgery.spoil(tensor, element, struct.pack("<H", value))


def indices(change: Any) -> Spoil:
    """The indices of fc.weight, as a list, after a change in place."""

    def spoil(forgery: Forgery) -> None:
        begin, end = forgery.header["fc.weight:indices"]["data_offsets"]
        count = (end - begin) // 2
        places = list(struct.unpack(f"<{count}H", forgery.data[begin:end]))
        change(places)
        forgery.spoil("fc.weight:indices", 0, struct.pack(f"<{count}H", *places))

    return spoil


def first_two_exchanged(places: list[int]) -> None:
    places[0], places[1] = places[1], places[0]


def plain(forgery: Forgery) -> None:
    """Another federation's file, which was not encoded, under this one's receipt."""
    header = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * k, 8 * k + 8]}
        for k, name in enumerate(("fc.weight", "fc.bias"))
    }
    forgery.write(json.dumps(header).encode(), bytes(16))


def lies(codec: Mapping[str, Any]) -> tuple[tuple[str, Spoil, str], ...]:
    """What a receipt may claim of an encoding that is another."""
    return (
        ("codec is not said", says(codec=None), "CodecMismatch"),
        ("codec is its name alone", says(codec=codec["name"]), "CodecMismatch|ReceiptInvalid"),
        ("codec is unheard of", says(codec={**codec, "name": "Zip"}), "CodecMismatch"),
        ("codec has a parameter too many", says(codec={**codec, "x": 1}), "CodecMismatch"),
        ("codec is a list", says(codec=[codec]), "CodecMismatch|ReceiptInvalid"),
        ("update is not encoded at all", plain, "SchemaMismatch"),
        ("buffer is NaN", holds("bn.running_var", float("nan")), "NotFinite"),
        ("encoded tensor comes twice", also("fc.weight:more"), "SchemaMismatch"),
    )


ENCODED: tuple[tuple[Mapping[str, Any], tuple[Case, ...]], ...] = (
    (
        BFLOAT16,
        cases(
            [
                *lies(BFLOAT16),
                ("bf16 is NaN", bits("fc.weight", 0x7FC0), "NotFinite"),
                ("bf16 is a NaN of one bit", bits("fc.weight", 0xFF81, -1), "NotFinite"),
                ("bf16 is infinite", bits("fc.bias", 0x7F80), "NotFinite"),
                ("bf16 is 1e38", bits("fc.bias", 0x7E96), "TooLarge"),
                ("bf16 claims to be half", entry("fc.bias", dtype="F16"), "SchemaMismatch"),
                ("bf16 claims to be I16", entry("fc.bias", dtype="I16"), "SchemaMismatch"),
            ]
        ),
    ),
    (
        INT8,
        cases(
            [
                *lies(INT8),
                ("scale is NaN", holds("fc.weight:scales", float("nan")), "EncodingInvalid"),
                ("scale is infinite", holds("fc.weight:scales", float("inf")), "EncodingInvalid"),
                ("last scale is -1", holds("fc.weight:scales", -1.0, -1), "EncodingInvalid"),
                ("scale is minus zero", holds("fc.weight:scales", -0.0), "EncodingInvalid"),
                ("scale is 1e30", holds("fc.weight:scales", 1e30), "TooLarge"),
                ("scale overflows", holds("fc.weight:scales", 3e38), "NotFinite|TooLarge"),
                ("value is -128", lambda f: f.spoil("fc.weight", 9, b"\x80"), "EncodingInvalid"),
                ("block is another", says(codec={**INT8, "block": 128}), "CodecMismatch"),
                ("block is text", says(codec={**INT8, "block": "64"}), "CodecMismatch"),
                ("values claim to be unsigned", entry("fc.weight", dtype="U8"), "SchemaMismatch"),
                ("scales are integers", entry("fc.weight:scales", dtype="I32"), "SchemaMismatch"),
                ("scales are in rows", entry("fc.weight:scales", shape=[2, 5]), "SchemaMismatch"),
            ]
        ),
    ),
    (
        TOPK,
        cases(
            [
                *lies(TOPK),
                ("index comes twice", indices(lambda p: p.__setitem__(1, p[0])), "EncodingInvalid"),
                ("indices are not sorted", indices(first_two_exchanged), "EncodingInvalid"),
                ("index is the length", bits("fc.weight:indices", 640, -1), "EncodingInvalid"),
                (
                    "index is beyond its block",
                    bits("fc.weight:indices", 1024, -1),
                    "EncodingInvalid",
                ),
                ("index is -1", bits("fc.weight:indices", 0xFFFF, -1), "EncodingInvalid"),
                (
                    "indices are all the same",
                    indices(lambda p: p.__setitem__(slice(None), [3] * len(p))),
                    "EncodingInvalid",
                ),
                ("value kept is NaN", holds("fc.weight", float("nan")), "NotFinite"),
                ("value kept is infinite", holds("fc.weight", float("-inf"), -1), "NotFinite"),
                ("value kept is 1e38", holds("fc.weight", 1e38), "TooLarge"),
                ("fraction is another", says(codec={**TOPK, "fraction": 0.2}), "CodecMismatch"),
                (
                    "indices claim to be bf16",
                    entry("fc.weight:indices", dtype="BF16"),
                    "SchemaMismatch",
                ),
                (
                    "indices are half as many",
                    entry("fc.weight:indices", dtype="I32", shape=[32]),
                    "SchemaMismatch",
                ),
            ]
        ),
    ),
)
