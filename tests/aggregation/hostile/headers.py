"""Update files whose header is not what it should be, signed as well as such a file can be."""

import json
import os
import struct
from collections.abc import Callable
from typing import Any

from tests.aggregation.hostile.forgery import Case, Forgery, Spoil, cases

MIB = 1024 * 1024


def header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The header, as JSON, after a change in place."""

    def spoil(forgery: Forgery) -> None:
        document = forgery.header
        change(document)
        forgery.write(document)

    return spoil


def entry(tensor: str, **said: Any) -> Spoil:
    """An entry of the header that says something else."""
    return header(lambda document: document[tensor].update(said))


def text(change: Callable[[bytes], bytes]) -> Spoil:
    """The header's text after a change, its length told truly."""
    return lambda forgery: forgery.write(change(json.dumps(forgery.header).encode()))


def length(of: Callable[[int], int]) -> Spoil:
    """A header's length that lies."""

    def spoil(forgery: Forgery) -> None:
        document = json.dumps(forgery.header).encode()
        forgery.write(document, length=of(len(document)))

    return spoil


def whole(data: bytes) -> Spoil:
    return lambda forgery: (forgery.update.write_bytes(data), forgery.sign())


def data(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda forgery: forgery.write(forgery.header, change(forgery.data))


def large(document: bytes) -> Spoil:
    """A header that is not worth signing, and nothing behind it."""

    def spoil(forgery: Forgery) -> None:
        forgery.update.write_bytes(struct.pack("<Q", len(document)) + document)
        forgery.say(size=8 + len(document))

    return spoil


def hundreds_of_thousands(forgery: Forgery) -> None:
    entries = (
        b'"%06d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % k for k in range(900_000)
    )
    large(b"{" + b",".join(entries) + b"}")(forgery)


def sparse(forgery: Forgery) -> None:
    """3.2 GB, of which 4 KB are on the disk."""
    size = 32 * 10**8
    one = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    document = json.dumps({"fc.weight": one}).encode()
    forgery.update.write_bytes(struct.pack("<Q", len(document)) + document)
    os.truncate(forgery.update, 8 + len(document) + size)
    forgery.say(size=8 + len(document) + size)


def longer(size: int) -> Spoil:
    """The true tensors, and then a hole of this many bytes."""

    def spoil(forgery: Forgery) -> None:
        total = forgery.update.stat().st_size + size
        os.truncate(forgery.update, total)
        forgery.say(size=total)

    return spoil


def twice(tensor: bytes) -> Callable[[bytes], bytes]:
    """A second entry of the same name, which some readers believe and some do not."""
    other = b'"%b": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}' % tensor
    return lambda document: b"{" + other + b", " + document[1:]


LENGTHS = cases(
    [
        ("file is empty", whole(b""), "HeaderInvalid"),
        ("file has seven bytes", whole(bytes(7)), "HeaderInvalid"),
        ("file has eight bytes of nothing", whole(bytes(8)), "HeaderInvalid"),
        (
            "file is another format",
            whole(b"PK\x03\x04" + bytes(100)),
            "HeaderTooLarge|SizeMismatch",
        ),
        (
            "file is a pickle",
            whole(b"\x80\x04\x95" + bytes(97) + b"."),
            "HeaderTooLarge|SizeMismatch",
        ),
        ("header has 2**63 bytes", length(lambda _: 2**63), "HeaderTooLarge"),
        ("header has 2**64 - 1 bytes", length(lambda _: 2**64 - 1), "HeaderTooLarge"),
        ("header has 101 MB, it says", length(lambda _: 101 * MIB), "HeaderTooLarge"),
        ("header is one byte longer than it says", length(lambda n: n - 1), "HeaderInvalid"),
        (
            "header is one byte shorter than it says",
            length(lambda n: n + 1),
            "HeaderInvalid|SizeMismatch",
        ),
        ("header is all there is", length(lambda n: n + 10**4), "HeaderInvalid|SizeMismatch"),
        ("data is one byte short", data(lambda d: d[:-1]), "SizeMismatch"),
        ("data is one byte long", data(lambda d: d + b"\0"), "SizeMismatch"),
        ("data is missing", data(lambda _: b""), "SizeMismatch"),
        ("data is there twice", data(lambda d: d + d), "SizeMismatch"),
        ("file is sparse and has 3.2 GB", sparse, "SchemaMismatch"),
        ("file ends in a hole of 8 TB", longer(8 * 1024**4), "SizeMismatch"),
        ("header is 900,000 empty tensors", hundreds_of_thousands, "HeaderTooLarge"),
        (
            "metadata has 10 MB",
            header(lambda d: d.update(__metadata__={"a": "b" * 10**7})),
            "HeaderTooLarge",
        ),
        ("header has 90 MB of spaces", large(b"{}" + b" " * 90 * MIB), "HeaderTooLarge"),
    ],
    heavy=[
        "file is sparse and has 3.2 GB",
        "file ends in a hole of 8 TB",
        "header is 900,000 empty tensors",
        "header has 90 MB of spaces",
    ],
)

JSON = cases(
    [
        ("header breaks off", text(lambda t: t[:-5]), "HeaderInvalid"),
        ("header is a list", text(lambda t: b"[" + t + b"]"), "HeaderInvalid"),
        ("header is empty JSON", text(lambda _: b"{}"), "SizeMismatch|SchemaMismatch"),
        ("header begins with a space", text(lambda t: b" " + t), "HeaderInvalid"),
        (
            "header begins with a byte order mark",
            text(lambda t: b"\xef\xbb\xbf" + t),
            "HeaderInvalid",
        ),
        ("header is UTF-16", text(lambda t: t.decode().encode("utf-16-le")), "HeaderInvalid"),
        (
            "header is no UTF-8",
            text(lambda t: t.replace(b"fc.bias", b"fc.bi\xff\xfe")),
            "HeaderInvalid",
        ),
        ("header holds NUL bytes", text(lambda t: t + b"\0\0"), "HeaderInvalid"),
        ("header has a second one behind it", text(lambda t: t + t), "HeaderInvalid"),
        ("header is 10,000 lists deep", text(lambda _: b'{"a":' + b"[" * 10_000), "HeaderInvalid"),
        ("header is 10,000 objects deep", text(lambda _: b'{"a":' * 10_000), "HeaderInvalid"),
        ("header names a tensor twice", text(twice(b"fc.bias")), "DuplicateName"),
        (
            "header names a tensor twice, once escaped",
            text(twice(b"fc\\u002ebias")),
            "DuplicateName",
        ),
        (
            "header has two metadata",
            text(lambda t: b'{"__metadata__":{},"__metadata__":{},' + t[1:]),
            "DuplicateName",
        ),
        ("metadata is a list", header(lambda d: d.update(__metadata__=[])), "HeaderInvalid"),
        (
            "metadata is a number of things",
            header(lambda d: d.update(__metadata__={"a": 1})),
            "HeaderInvalid",
        ),
        ("metadata is null", header(lambda d: d.update(__metadata__=None)), "HeaderInvalid"),
        ("entry is null", header(lambda d: d.update({"fc.bias": None})), "HeaderInvalid"),
        ("entry is a list", header(lambda d: d.update({"fc.bias": []})), "HeaderInvalid"),
        ("entry has a key too many", entry("fc.bias", stride=[1]), "HeaderInvalid"),
        ("entry has no dtype", header(lambda d: d["fc.bias"].pop("dtype")), "HeaderInvalid"),
        ("entry has no shape", header(lambda d: d["fc.bias"].pop("shape")), "HeaderInvalid"),
        (
            "entry says its shape twice",
            text(lambda t: t.replace(b'"shape"', b'"shape": [], "shape"', 1)),
            "DuplicateName",
        ),
    ]
)

HEADERS: tuple[Case, ...] = (*LENGTHS, *JSON)
