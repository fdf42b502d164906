"""A second reader of updates, written from the format's description and sharing no code with ours.

It is slow, maps whole files into memory and checks one thing after the other, so that what it says
can be believed: the forgeries are signed with its digest, the fuzzer compares verdicts with it.
"""

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

TILE = 16 * 1024 * 1024
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "U16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Name → (dtype, shape, its bytes)."""


class Unsound(Exception):
    """Not an update that anybody should average."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise Unsound("a name comes twice")
    return dict(pairs)


def parse(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Unsound(f"no JSON: {error}") from None


def regular(path: Path) -> bytes:
    """The bytes of an ordinary file of one name."""
    try:
        status = os.lstat(path)
    except OSError as error:
        raise Unsound(f"{path.name}: {error}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size > 2**28:
        raise Unsound(f"{path.name} is no ordinary file")
    return path.read_bytes()


def tensors(data: bytes) -> Tensors:
    """What a safetensors file holds; its tensors must cover it without a gap."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or 8 + length > len(data) or data[8:9] != b"{":
        raise Unsound("no header")
    header, body = parse(data[8 : 8 + length]), data[8 + length :]
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        raise Unsound("metadata that is not text")
    found, reached = {}, 0
    for name, (dtype, shape, (begin, end)) in sorted(
        ((name, entry(value)) for name, value in header.items()), key=lambda item: item[1][2]
    ):
        width = np.dtype(DTYPES[dtype]).itemsize
        if begin != reached or end - begin != width * math.prod(shape):
            raise Unsound("offsets that overlap, leave a hole or do not fit")
        found[name], reached = (dtype, shape, body[begin:end]), end
    if reached != len(body):
        raise Unsound("more or fewer bytes than the header says")
    return found


def entry(value: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    if type(value) is not dict or set(value) != {"dtype", "shape", "data_offsets"}:
        raise Unsound("a malformed entry")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPES:
        raise Unsound("an unknown dtype")
    for numbers in (shape, offsets):
        if type(numbers) is not list or any(type(n) is not int or n < 0 for n in numbers):
            raise Unsound("no whole numbers")
    if len(offsets) != 2:
        raise Unsound("not two offsets")
    return dtype, tuple(shape), (offsets[0], offsets[1])


def digest(found: Tensors) -> str:
    """The layout-free digest, as the contract words it."""
    whole = hashlib.sha256()
    for name in sorted(found):
        dtype, shape, data = found[name]
        tiles = [data[at : at + TILE] for at in range(0, max(len(data), 1), TILE)]
        hashes = [hashlib.sha256(tile).hexdigest() for tile in tiles]
        line = json.dumps([name, dtype, list(shape), hashes], separators=(",", ":"))
        whole.update(line.encode() + b"\n")
    return "sha256:" + whole.hexdigest()


def values(dtype: str, data: bytes) -> np.ndarray:
    """Flat; brain floats widened. Raises Unsound for bytes that are no value of the dtype."""
    if dtype == "BOOL" and set(data) - {0, 1}:
        raise Unsound("neither true nor false")
    array = np.frombuffer(data, DTYPES[dtype])
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array


def wide(array: np.ndarray) -> np.ndarray:
    """In fp64."""
    with np.errstate(invalid="ignore"):  # a NaN that signals
        return array.astype(np.float64)


def refuse_unless_finite(array: np.ndarray, largest: float = 2.0**56) -> None:
    if array.size and not np.abs(wide(array)).max() <= largest:
        raise Unsound("values that cannot be averaged")
