"""Mutations of an update on each of its levels; most of them are signed, so that they get far."""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from fedtrain.contract import RECEIPT_FILE, UPDATE_FILE
from tests.aggregation.hostile import naive
from tests.aggregation.hostile.forgery import Forgery
from tests.aggregation.hostile.places import PLACES

MIB = 1024 * 1024
WORDS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 5, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64),
    *(10**30, 0.5, 1.0, -0.0, 1e18, float("nan"), float("inf"), "", "1", "5", "\ud800", "x" * 5000),
    *([], [0], [[]], {}, {"name": "Int8"}, {"a": {"b": [1]}}, "sha256:" + "1" * 64, "F32", "BF16"),
)
"""What may stand in the place of anything else in JSON."""

FLOATS = (
    *(0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x3F800000, 0x7F800000, 0xFF800000),
    *(0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7F7FFFFF, 0x5B800000, 0x5B800001, 0xDB800000),
)
"""Bits of fp32: zeros, subnormals, one, infinities, NaNs, the largest, the bound and beyond it."""


@dataclass
class Draft:
    """An update in memory, before it is signed and written."""

    header: dict[str, Any]
    data: bytearray
    rng: Random

    def entry(self) -> dict[str, Any]:
        """One of the header's entries, if it still is one."""
        entries = [value for value in self.header.values() if isinstance(value, dict)]
        return self.rng.choice(entries) if entries else {}

    def text(self) -> bytes:
        return json.dumps(self.header).encode()


Mutation = Callable[[Draft], object]


def a_value(draft: Draft) -> None:
    entry, word = draft.entry(), draft.rng.choice(WORDS)
    entry[draft.rng.choice(["dtype", "shape", "data_offsets", "x"])] = word


def a_number(draft: Draft) -> None:
    """One number of a shape or of offsets."""
    numbers = draft.entry().get(draft.rng.choice(["shape", "data_offsets"]))
    if isinstance(numbers, list) and numbers:
        at = draft.rng.randrange(len(numbers))
        near = numbers[at] if type(numbers[at]) is int else 0
        steps = (1, -1, 4, -4, near, -near, 2**62, -(2**63))
        numbers[at] = draft.rng.choice([*(near + step for step in steps), float(near), *WORDS])


def a_dtype(draft: Draft) -> None:
    draft.entry()["dtype"] = draft.rng.choice([*naive.DTYPES, "F8_E4M3", "f32", "C64"])


def a_name(draft: Draft) -> None:
    old = draft.rng.choice([*draft.header] or [""])
    extra = draft.rng.choice([" ", "\0", "\ud800", "é", "/../x", "\n", "x" * 300, ""])
    draft.header[old + extra] = draft.header.pop(old, {})


def a_tensor_less(draft: Draft) -> None:
    if draft.header:
        del draft.header[draft.rng.choice([*draft.header])]


def a_tensor_more(draft: Draft) -> None:
    count, at = draft.rng.choice([0, 1, 5]), len(draft.data)
    new = {"dtype": "F32", "shape": [count], "data_offsets": [at, at + 4 * count]}
    draft.header[draft.rng.choice(["fc.tied", "extra", "a" * 200])] = new
    draft.data += bytes(4 * count)


def two_exchanged(draft: Draft) -> None:
    one, other, key = draft.entry(), draft.entry(), draft.rng.choice(["data_offsets", "shape"])
    if key in one and key in other:
        one[key], other[key] = other[key], one[key]


def metadata(draft: Draft) -> None:
    words = [{"format": "pt"}, {"a": 1}, {"": ""}, {"a": "b" * 3000}, *WORDS]
    draft.header["__metadata__"] = draft.rng.choice(words)


def a_float(draft: Draft) -> None:
    if len(draft.data) >= 4:
        at = 4 * draft.rng.randrange(len(draft.data) // 4)
        draft.data[at : at + 4] = struct.pack("<I", draft.rng.choice(FLOATS))


def a_half(draft: Draft) -> None:
    """16 bits: an index, or a brain float."""
    if len(draft.data) >= 2:
        at = 2 * draft.rng.randrange(len(draft.data) // 2)
        word = draft.rng.choice([0, 1, 639, 640, 1024, 0x7FC0, 0x7F80, 0x5B80, 0x5B81, 0xFFFF])
        draft.data[at : at + 2] = struct.pack("<H", word)


def a_byte(draft: Draft) -> None:
    if draft.data:
        draft.data[draft.rng.randrange(len(draft.data))] = draft.rng.choice(
            [0, 1, 7, 127, 128, 255]
        )


def a_run(draft: Draft) -> None:
    """Bytes of one place at another."""
    if draft.data:
        size = draft.rng.randrange(1, 64)
        one, other = (draft.rng.randrange(len(draft.data)) for _ in range(2))
        run = draft.data[one : one + size]
        draft.data[other : other + len(run)] = run


def a_length(draft: Draft) -> None:
    """More data than there should be, or less."""
    change = draft.rng.choice([-1, 1, 4, -4, 1000])
    if change > 0:
        draft.data += bytes(change)
    else:
        del draft.data[change:]


def nothing(_: Draft) -> None:
    """Many are sound: a refusal of those is a bug, too."""


DRAFTS: tuple[Mutation, ...] = (
    *(nothing, nothing, a_value, a_number, a_dtype, a_name, a_tensor_less, a_tensor_more),
    *(two_exchanged, metadata, a_float, a_float, a_half, a_byte, a_run, a_length),
)


def texts(text: bytes, rng: Random) -> bytes:
    """JSON after a change of its text."""
    at = rng.randrange(len(text) + 1)
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: text[:at],
        lambda: text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :],
        lambda: text[:at] + text[at + rng.randrange(1, 9) :],
        lambda: (
            text[:at] + rng.choice([b"\0", b"\xff", b"{", b"}", b",", b" ", b"NaN"]) + text[at:]
        ),
        lambda: b"{" + text[1:-1].rstrip(b"\n}") + b"," + text[1:],  # everything twice
        lambda: text.replace(b'": ', b'":'),
        lambda: text.replace(b", ", b",\n\t "),
        lambda: text.decode("utf-8", "replace").encode(
            rng.choice(["utf-16-le", "utf-16", "utf-32"])
        ),
        lambda: text + rng.choice([b" " * rng.choice([1, 7, 4000, 2 * MIB]), b"{}", b"\0"]),
        lambda: rng.choice([b"[", b'{"a":']) * rng.choice([100, 20_000]),
        lambda: b"\xef\xbb\xbf" + text,
    )
    return rng.choice(changes)()


def lengths(length: int, rng: Random) -> int:
    """What a header says of its own length."""
    near = [max(0, length + step) for step in (-8, -1, 1, 8)]
    return rng.choice([*near, 0, 1, 2**31, 2**32 + length, 2**63, 2**64 - 1, 101 * MIB])


def receipts(document: dict[str, Any], rng: Random) -> None:
    """One field of a receipt says something else, is missing, or is new."""
    field, kind = rng.choice([*document]), rng.random()
    if kind < 0.15:
        del document[field]
    elif kind < 0.25:
        document[rng.choice(["self", "weight", "Samples", ""])] = rng.choice(WORDS)
    elif kind < 0.7 and type(document[field]) is int:
        document[field] += rng.choice([1, -1, 10**6])
    else:
        document[field] = rng.choice(WORDS)


def kinds(forgery: Forgery, rng: Random) -> None:
    """A file becomes something that is no file."""
    name = rng.choice([UPDATE_FILE, RECEIPT_FILE])
    path = forgery.folder / name
    if rng.random() < 0.2:
        return path.unlink()
    if rng.random() < 0.2:
        return os.truncate(path, rng.choice([0, 1, 100, path.stat().st_size + 2**40]))
    place = rng.choice([*PLACES.values()])
    return forgery.replace(name, lambda path: place(path, forgery))


def mutate(forgery: Forgery, rng: Random) -> None:
    """One to three changes of what was published soundly, on any level, or one of its receipt.

    A lie in a receipt is seen only where nothing else is wrong: some get no other change.
    """
    draft = Draft(forgery.header, bytearray(forgery.data), rng)
    changes = rng.choice([0, 1, 1, 1, 2, 3])
    for _ in range(changes):
        rng.choice(DRAFTS)(draft)
    text = draft.text()
    if rng.random() < 0.12:
        text = texts(text, rng)
    length = lengths(len(text), rng) if rng.random() < 0.04 else None
    before = forgery.receipt.read_bytes()
    forgery.write(text, bytes(draft.data), length)
    if rng.random() < 0.15:
        forgery.receipt.write_bytes(before)  # what was signed is not what lies there
        if rng.random() < 0.8:
            forgery.say(size=forgery.update.stat().st_size)
    if changes == 0 or rng.random() < 0.2:
        document = json.loads(forgery.receipt.read_text())
        receipts(document, rng)
        forgery.receipt.write_text(json.dumps(document))
    if rng.random() < 0.06:
        forgery.receipt.write_bytes(texts(forgery.receipt.read_bytes(), rng))
    if rng.random() < 0.05:
        kinds(forgery, rng)
