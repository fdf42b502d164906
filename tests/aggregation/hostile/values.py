"""Well-formed updates with values that nobody may average, or other ones than were signed."""

import os
import struct

from tests.aggregation.hostile.forgery import Case, Forgery, Spoil, cases


def holds(tensor: str, value: float, element: int = 0) -> Spoil:
    return lambda forgery: forgery.spoil(tensor, element, struct.pack("<f", value))


def holds_bits(tensor: str, bits: int, element: int = 0) -> Spoil:
    return lambda forgery: forgery.spoil(tensor, element, struct.pack("<I", bits))


def everywhere(value: float) -> Spoil:
    """The whole file, every tensor of floats."""

    def spoil(forgery: Forgery) -> None:
        for name, entry in forgery.header.items():
            if entry["dtype"] == "F32":
                begin, end = entry["data_offsets"]
                forgery.spoil(name, 0, struct.pack("<f", value) * ((end - begin) // 4))

    return spoil


def flipped(at: int) -> Spoil:
    """One bit of the file is not what was signed."""

    def spoil(forgery: Forgery) -> None:
        data = bytearray(forgery.update.read_bytes())
        data[at] ^= 1
        forgery.update.write_bytes(data)

    return spoil


def swapped(one: str, other: str) -> Spoil:
    """The bytes of two tensors of one shape, exchanged behind the receipt's back."""

    def spoil(forgery: Forgery) -> None:
        document = forgery.header
        receipt = forgery.receipt.read_bytes()
        first, second = document[one]["data_offsets"], document[other]["data_offsets"]
        document[one]["data_offsets"], document[other]["data_offsets"] = second, first
        forgery.write(document)
        forgery.receipt.write_bytes(receipt)
        forgery.say(size=forgery.update.stat().st_size)

    return spoil


def zeroed(forgery: Forgery) -> None:
    """The signed file, all of whose data became a hole: what some disks do after a crash."""
    size, data = forgery.update.stat().st_size, len(forgery.data)
    os.truncate(forgery.update, size - data)
    os.truncate(forgery.update, size)


VALUES: tuple[Case, ...] = cases(
    [
        ("first weight is NaN", holds("conv.weight", float("nan")), "NotFinite"),
        ("last weight is NaN", holds("fc.weight", float("nan"), -1), "NotFinite"),
        ("weight is a NaN that signals", holds_bits("fc.weight", 0x7F800001, 17), "NotFinite"),
        ("weight is a negative NaN", holds_bits("fc.weight", 0xFFC00000, 17), "NotFinite"),
        ("weight is infinite", holds("fc.weight", float("inf")), "NotFinite"),
        ("weight is minus infinite", holds("fc.weight", float("-inf")), "NotFinite"),
        (
            "infinities cancel",
            lambda f: (holds("fc.bias", float("inf"))(f), holds("fc.bias", float("-inf"), 1)(f)),
            "NotFinite",
        ),
        ("buffer is NaN", holds("bn.running_var", float("nan"), 3), "NotFinite"),
        ("buffer is infinite", holds("bn.running_var", float("inf"), -1), "NotFinite"),
        ("weight is 1e38", holds("fc.weight", 1e38), "TooLarge"),
        ("weight is -1e38", holds("fc.weight", -1e38, -1), "TooLarge"),
        ("weight is the largest float", holds_bits("fc.bias", 0x7F7FFFFF), "TooLarge"),
        ("weight is just beyond the bound", holds_bits("fc.bias", 0x5B800001), "TooLarge"),
        ("buffer is 1e38", holds("bn.running_var", 1e38), "TooLarge"),
        ("weights are all 1e38", everywhere(1e38), "TooLarge"),
        ("weights are all NaN", everywhere(float("nan")), "NotFinite"),
        ("truth is 7", lambda f: f.spoil("mask", 1, b"\x07"), "NotBoolean"),
        ("truth is 255", lambda f: f.spoil("mask", -1, b"\xff"), "NotBoolean"),
        ("last bit is another than was signed", flipped(-1), "DigestMismatch"),
        ("first tensor is another than was signed", flipped(-3000), "DigestMismatch"),
        ("tensors were exchanged after signing", swapped("left", "right"), "DigestMismatch"),
        ("data became zeros after signing", zeroed, "DigestMismatch"),
    ]
)
