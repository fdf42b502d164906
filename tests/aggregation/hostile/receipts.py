"""Receipts that lie, and files that are no receipts."""

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

from fedtrain.contract import RECEIPT_FILE
from tests.aggregation.hostile.forgery import Case, Forgery, Spoil, cases
from tests.aggregation.hostile.places import PLACES

MIB = 1024 * 1024
OTHER = "sha256:" + "1" * 64


def says(**said: Any) -> Spoil:
    return lambda forgery: forgery.say(**said)


def says_raw(field: str, text: str) -> Spoil:
    return lambda forgery: forgery.say_raw(field, text)


def is_text(change: Callable[[str], str | bytes]) -> Spoil:
    """The receipt's text after a change."""

    def spoil(forgery: Forgery) -> None:
        changed = change(forgery.receipt.read_text())
        forgery.receipt.write_bytes(changed.encode() if isinstance(changed, str) else changed)

    return spoil


def replays_an_old_round(forgery: Forgery) -> None:
    """The very folder of round 0, when the base was another, put into this round's place."""
    forgery.say(round=0, base=OTHER)
    old = forgery.folder.parents[1] / "0" / "1"
    old.parent.mkdir()
    forgery.folder.rename(old)
    shutil.copytree(old, forgery.folder)


def copies_another(forgery: Forgery) -> None:
    shutil.rmtree(forgery.folder)
    shutil.copytree(forgery.others[0], forgery.folder)


def copies_anothers_receipt(forgery: Forgery) -> None:
    shutil.copy(forgery.others[0] / RECEIPT_FILE, forgery.receipt)


def lacks(field: str) -> Spoil:
    def spoil(forgery: Forgery) -> None:
        document = json.loads(forgery.receipt.read_text())
        del document[field]
        forgery.receipt.write_text(json.dumps(document))

    return spoil


def is_placed(place: str) -> Spoil:
    return lambda forgery: forgery.replace(RECEIPT_FILE, lambda path: PLACES[place](path, forgery))


def with_field(text: str) -> Callable[[str], str]:
    return lambda receipt: receipt.rstrip()[:-1] + "," + text + "}"


def sparse(size: int) -> Spoil:
    return lambda forgery: os.truncate(forgery.receipt, size)


LIES = cases(
    [
        ("receipt is replayed from an old round", replays_an_old_round, "ReceiptMismatch"),
        ("whole attempt is another's", copies_another, "ReceiptMismatch"),
        ("receipt is another's", copies_anothers_receipt, "ReceiptMismatch"),
        ("receipt is another federation's", says(training="9" * 36), "ReceiptMismatch"),
        ("receipt names a round to come", says(round=2), "ReceiptMismatch"),
        ("receipt names another attempt", says(attempt=2), "ReceiptMismatch"),
        ("participant is a list", says(participant=["x"]), "ReceiptMismatch"),
        ("training is an object", says(training={}), "ReceiptMismatch"),
        ("base is another model", says(base=OTHER), "BaseMismatch"),
        ("base is not said", says(base=None), "BaseMismatch"),
        ("base is a number", says(base=5), "BaseMismatch"),
        ("base is a list", says(base=[OTHER]), "BaseMismatch"),
        ("digest is another's", says(digest=OTHER), "DigestMismatch"),
        ("digest is not said", says(digest=None), "ReceiptInvalid"),
        ("digest is a number", says(digest=5), "ReceiptInvalid"),
        ("digest is empty", says(digest=""), "ReceiptInvalid"),
        ("digest is half a surrogate pair", says(digest="\ud800"), "ReceiptInvalid"),
        ("digest is two lines", says(digest="x\nthe model was replaced"), "ReceiptInvalid"),
        (
            "size is one byte short",
            lambda f: f.say(size=f.update.stat().st_size - 1),
            "ReceiptMismatch",
        ),
        ("size is nothing", says(size=0), "ReceiptMismatch"),
        ("size is negative", says(size=-1), "ReceiptInvalid"),
        ("size is true", says(size=True), "ReceiptInvalid"),
        ("samples are 0", says(samples=0), "SamplesMissing"),
        ("samples are -1", says(samples=-1), "ReceiptInvalid"),
        ("samples are 10**18", says(samples=10**18), "ReceiptInvalid"),
        ("samples are 1e18", says_raw("samples", "1e18"), "ReceiptInvalid"),
        ("samples are 1e400", says_raw("samples", "1e400"), "ReceiptInvalid"),
        ("samples are NaN", says_raw("samples", "NaN"), "ReceiptInvalid"),
        ("samples are -Infinity", says_raw("samples", "-Infinity"), "ReceiptInvalid"),
        ("samples are true", says(samples=True), "ReceiptInvalid"),
        ('samples are "5"', says(samples="5"), "ReceiptInvalid"),
        ("samples are null", says(samples=None), "ReceiptInvalid"),
        ("samples are a list", says(samples=[5]), "ReceiptInvalid"),
        ("samples are an object", says(samples={"n": 5}), "ReceiptInvalid"),
        ("samples are 0.5", says(samples=0.5), "ReceiptInvalid"),
        ("samples are 5.0", says(samples=5.0), "ReceiptInvalid"),
        ("samples are one more than fp64 counts", says(samples=2**53 + 1), "ReceiptInvalid"),
        ("samples have 400 digits", says_raw("samples", "9" * 400), "ReceiptInvalid"),
        ("samples have 100,000 digits", says_raw("samples", "9" * 100_000), "ReceiptInvalid"),
        *(
            (f"{field} is {text}", says_raw(field, text), "ReceiptInvalid")
            for field in ("steps", "learning_rate", "norm")
            for text in ("-1", "true", '"5"', "NaN", "Infinity", "-Infinity", "1e400", "[1]", "{}")
        ),
        ("steps are one more than fp64 counts", says(steps=2**53 + 1), "ReceiptInvalid"),
        ("steps have 400 digits", says_raw("steps", "9" * 400), "ReceiptInvalid"),
        ("steps are null", says(steps=None), "ReceiptInvalid"),
        ("steps are 5.0", says(steps=5.0), "ReceiptInvalid"),
        ("learning rate is 0", says(learning_rate=0), "ReceiptInvalid"),
        ("norm is minus zero", says(norm=-0.0), "ReceiptInvalid"),
        ("norm has 400 digits", says_raw("norm", "9" * 400), "ReceiptInvalid"),
        ("learning rate is 1e12", says(learning_rate=1e12), "ReceiptInvalid"),
        ("version is one to come", says(version=2), "ReceiptInvalid"),
        ("version is true", says(version=True), "ReceiptInvalid"),
        ("version is text", says(version="1"), "ReceiptInvalid"),
        ("round is 1.0", says_raw("round", "1.0"), "ReceiptInvalid"),
        ("round is true", says(round=True), "ReceiptInvalid"),
        ("attempt is true", says(attempt=True), "ReceiptInvalid"),
        (
            "codec is one that nobody asked for",
            says(codec={"name": "Int8", "block": 256}),
            "CodecMismatch",
        ),
        ("codec is unheard of", says(codec={"name": "Zip"}), "CodecMismatch"),
        ("codec is text", says(codec="Int8"), "CodecMismatch|ReceiptInvalid"),
        ("codec is false", says(codec=False), "CodecMismatch|ReceiptInvalid"),
        ("codec is an empty object", says(codec={}), "CodecMismatch|ReceiptInvalid"),
    ]
)

UNCOUNTED = cases(
    [
        ("steps are 0", says(steps=0), "StepsMissing"),
        ("steps are not said", lacks("steps"), "StepsMissing"),
        ("learning rate is not said", lacks("learning_rate"), "StepsMissing"),
        ("learning rate is null", says(learning_rate=None), "StepsMissing"),
        ("norm is not said", lacks("norm"), "StepsMissing"),
        ("norm is null", says(norm=None), "StepsMissing"),
        ("norm is beyond its steps'", says(norm=1001.0), "ReceiptInvalid"),
        ("length is next to nothing", says(learning_rate=1e-10), "ReceiptInvalid"),
        ("length is the smallest subnormal", says(learning_rate=5e-324), "ReceiptInvalid"),
        ("length underflows", says(learning_rate=1e-300, norm=1e-300), "ReceiptInvalid"),
        (
            "length is beyond this world",
            says(learning_rate=1e10, norm=1e3, steps=1),
            "ReceiptInvalid",
        ),
        ("norm is a number to believe, of a rate that is not", says(norm=2e-9), "ReceiptInvalid"),
    ]
)
"""What only those strategies refuse that have to know how far a participant went."""

NOT_RECEIPTS = cases(
    [
        *(
            (f"receipt has no {field}", lacks(field), "ReceiptInvalid")
            for field in (
                "training",
                "round",
                "participant",
                "attempt",
                "base",
                "digest",
                "size",
                "samples",
            )
        ),
        ("receipt has a field too many", says(weight=10), "ReceiptInvalid"),
        ("receipt says samples twice", is_text(with_field('"samples":1000000')), "ReceiptInvalid"),
        ("receipt says digest twice", is_text(with_field('"digest":"x"')), "ReceiptInvalid"),
        ("receipt has a field called self", says(self=1), "ReceiptInvalid"),
        ("receipt has a field called __class__", says(__class__="x"), "ReceiptInvalid"),
        (
            "receipt has a second JSON behind it",
            is_text(lambda text: text + "{}"),
            "ReceiptInvalid",
        ),
        ("receipt breaks off", is_text(lambda text: text[:-3]), "ReceiptInvalid"),
        ("receipt is empty", is_text(lambda _: ""), "ReceiptInvalid"),
        ("receipt is spaces", is_text(lambda _: " " * 1000), "ReceiptInvalid"),
        ("receipt is a list", is_text(lambda text: f"[{text}]"), "ReceiptInvalid"),
        ("receipt is null", is_text(lambda _: "null"), "ReceiptInvalid"),
        ("receipt is a number", is_text(lambda _: "1"), "ReceiptInvalid"),
        ("receipt is text", is_text(lambda text: json.dumps(text)), "ReceiptInvalid"),
        ("receipt is no UTF-8", is_text(lambda text: text.encode() + b"\xff"), "ReceiptInvalid"),
        ("receipt is UTF-16", is_text(lambda text: text.encode("utf-16")), "ReceiptInvalid"),
        ("receipt has a byte order mark", is_text(lambda text: "\ufeff" + text), "ReceiptInvalid"),
        ("receipt holds NUL bytes", is_text(lambda text: text + "\0"), "ReceiptInvalid"),
        ("receipt is 100,000 lists deep", is_text(lambda _: "[" * 100_000), "ReceiptInvalid"),
        ("receipt is 40,000 objects deep", is_text(lambda _: '{"a":' * 40_000), "ReceiptInvalid"),
        ("metrics are 100,000 lists deep", says_raw("metrics", "[" * 100_000), "ReceiptInvalid"),
        ("receipt has 1 MB of spaces", is_text(lambda text: text + " " * MIB), "ReceiptInvalid"),
        ("receipt has 100 MB", is_text(lambda text: text + " " * 100 * MIB), "ReceiptInvalid"),
        ("receipt has 8 TB, all of it sparse", sparse(8 * 1024**4), "ReceiptInvalid"),
        ("receipt is missing", lambda f: f.receipt.unlink(), "ReceiptMissing"),
        *((f"receipt is {place}", is_placed(place), "ReceiptInvalid") for place in PLACES),
    ],
    heavy=["receipt has 100 MB", "receipt has 8 TB, all of it sparse"],
)

RECEIPTS: tuple[Case, ...] = (*LIES, *NOT_RECEIPTS)
