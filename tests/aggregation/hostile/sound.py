"""Updates that look odd and are not wrong: they count like the same values written plainly."""

import json
import os
import struct

from tests.aggregation.hostile.forgery import Forgery, Spoil


def order_reversed(forgery: Forgery) -> None:
    """Tensors in another order in the file: the digest is free of the layout."""
    document, data, body = forgery.header, forgery.data, b""
    for entry in sorted(document.values(), key=lambda entry: -entry["data_offsets"][0]):
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = [len(body), len(body) + end - begin]
        body += data[begin:end]
    forgery.write(document, body)


def header_text(before: str, after: str) -> Spoil:
    return lambda f: f.write(json.dumps(f.header).replace(before, after).encode())


def receipt_sorted_backwards(forgery: Forgery) -> None:
    document = json.loads(forgery.receipt.read_text())
    forgery.receipt.write_text(json.dumps(dict(sorted(document.items(), reverse=True)), indent=9))


def value(tensor: str, number: float) -> Spoil:
    return lambda forgery: forgery.spoil(tensor, 0, struct.pack("<f", number))


def as_a_hole(forgery: Forgery) -> None:
    """Zeros throughout, of which no block is on the disk."""
    size, data = forgery.update.stat().st_size, len(forgery.data)
    os.truncate(forgery.update, size - data)
    os.truncate(forgery.update, size)
    forgery.sign()


SOUND: dict[str, Spoil] = {
    "its tensors come in another order": order_reversed,
    "its header has metadata": lambda f: f.write({"__metadata__": {"who": "éme"}, **f.header}),
    "its header ends in spaces": lambda f: f.write(json.dumps(f.header).encode() + b" " * 999),
    "its data begins at an odd offset": lambda f: f.write(json.dumps(f.header).encode() + b" "),
    "its header has escapes in names": header_text("fc.bias", "f\\u0063.bi\\u0061s"),
    "its header has line breaks": header_text(", ", ",\n\t"),
    "its receipt is sorted backwards": receipt_sorted_backwards,
    "its folder holds other files": lambda f: (f.folder / "notes.txt").write_text("hello"),
    "its weight is minus zero": value("fc.weight", -0.0),
    "its weight is the smallest subnormal": value("fc.weight", 1e-45),
    "its buffer is subnormal": value("bn.running_var", -1e-40),
    "its weight is the largest that passes": value("fc.bias", 2.0**56),
    "its data is a hole of zeros": as_a_hole,
    "its integer is the largest there is": lambda f: f.spoil(
        "bn.num_batches_tracked", 0, struct.pack("<q", 2**63 - 1)
    ),
    "its integer is the smallest there is": lambda f: f.spoil(
        "bn.num_batches_tracked", 0, struct.pack("<q", -(2**63))
    ),
}
