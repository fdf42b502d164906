"""How tensors lie in a safetensors file: dtypes, offsets, and a header that is not trusted.

A file is eight bytes of header length (little endian), that many bytes of JSON, and the tensors'
bytes end to end, row-major and little endian (the format's own README, "Format"). Reading here is
stricter than the reference library, which lets duplicate names and unbounded headers pass.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADER_LIMIT = 100_000_000
"""Bytes of JSON, the limit of the reference library; a reader may ask for less."""

_ITEM_DTYPES: Mapping[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_NAMES = {np.dtype(code): name for name, code in _ITEM_DTYPES.items()}
FLOATING = frozenset({"F64", "F32", "F16", "BF16"})


class TensorFileError(ValueError):
    """A file that is not used as it is: one sentence, and a CamelCase `reason` for machines."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence[:300])
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file; `begin` and `end` are byte offsets in the file's data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    @property
    def count(self) -> int:
        """Elements; 1 for a scalar, whose shape is ()."""
        return math.prod(self.shape)


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype that carries a safetensors dtype; BF16 travels as the uint16 of its bits."""
    try:
        return np.dtype(_ITEM_DTYPES[dtype])
    except KeyError:
        raise TensorFileError("DtypeUnsupported", f"{dtype} is not a supported dtype") from None


def dtype_name(array: np.ndarray[Any, Any]) -> str:
    """The safetensors dtype of an array; uint16 is BF16, since numpy has no bfloat16."""
    try:
        return _NAMES[array.dtype.newbyteorder("<")]
    except KeyError:
        raise TensorFileError("DtypeUnsupported", f"numpy's {array.dtype} has no place") from None


def item_size(dtype: str) -> int:
    return numpy_dtype(dtype).itemsize


def plan(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[TensorInfo, ...]:
    """Where each (name, dtype, shape) goes; the answer is sorted by name.

    Wider items come first in the file (then names), so that every tensor is aligned for whoever
    maps it. Raises TensorFileError for a name that comes twice and for an unknown dtype.
    """
    wanted = sorted(tensors, key=lambda tensor: (-item_size(tensor[1]), tensor[0]))
    placed: dict[str, TensorInfo] = {}
    begin = 0
    for name, dtype, shape in wanted:
        if name in placed:
            raise TensorFileError("DuplicateName", f"tensor {name!r} appears twice")
        end = begin + math.prod(shape) * item_size(dtype)
        placed[name] = TensorInfo(name, dtype, tuple(shape), begin, end)
        begin = end
    return tuple(placed[name] for name in sorted(placed))


def encode_header(tensors: Iterable[TensorInfo], metadata: Mapping[str, str] | None) -> bytes:
    """Length and JSON, padded with spaces so that the data begins at a multiple of eight."""
    document: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for info in sorted(tensors, key=lambda info: info.begin):
        document[info.name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [info.begin, info.end],
        }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise TensorFileError("HeaderTooLarge", f"{len(document)} tensors do not fit one header")
    return struct.pack("<Q", len(text)) + text


def parse_header(text: bytes, data_size: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors by name (sorted) and metadata of a header over `data_size` bytes of data.

    Raises TensorFileError unless names are unique and the tensors cover the data exactly.
    """
    if not text.startswith(b"{"):
        raise TensorFileError("HeaderInvalid", "the header does not begin with '{'")
    try:
        # Decoded here, since json would take UTF-16 and UTF-32, which other readers do not.
        document = json.loads(text.decode(), object_pairs_hook=_unique)
    except TensorFileError:
        raise
    except (ValueError, RecursionError) as error:
        sentence = f"the header is not JSON: {str(error)[:100]}"
        raise TensorFileError("HeaderInvalid", sentence) from None
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TensorFileError("HeaderInvalid", "__metadata__ must hold strings")
    tensors = {name: _tensor(name, entry) for name, entry in sorted(document.items())}
    _check_cover(tensors, data_size)
    return tensors, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise TensorFileError("DuplicateName", "the header names something twice")
    return document


def _tensor(name: str, entry: Any) -> TensorInfo:
    shown = ascii(name[:80])
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise TensorFileError("HeaderInvalid", f"the header entry of {shown} is malformed")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_DTYPES:
        raise TensorFileError("DtypeUnsupported", f"{shown} has the unsupported dtype {dtype!r}")
    if not _is_whole(shape) or not _is_whole(offsets) or len(offsets) != 2:
        raise TensorFileError("HeaderInvalid", f"{shown} has an impossible shape or offset")
    if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise TensorFileError("HeaderInvalid", f"the name {shown} is not text")
    info = TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])
    if info.nbytes != info.count * item_size(dtype):
        raise TensorFileError("LayoutInvalid", f"{shown} has offsets that do not fit its shape")
    return info


def _is_whole(numbers: Any) -> bool:
    return (
        isinstance(numbers, list)
        and len(numbers) <= 64
        and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    )


def _check_cover(tensors: Mapping[str, TensorInfo], data_size: int) -> None:
    reached = 0
    for info in sorted(tensors.values(), key=lambda info: (info.begin, info.end)):
        if info.begin != reached:
            shown = ascii(info.name[:80])
            raise TensorFileError("LayoutInvalid", f"{shown} overlaps another or leaves a hole")
        reached = info.end
    if reached != data_size:
        sentence = f"the header promises {reached} bytes of tensors, the file holds {data_size}"
        raise TensorFileError("SizeMismatch", sentence)
