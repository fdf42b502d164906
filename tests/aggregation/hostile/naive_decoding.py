"""The encodings as loops over single values, for the second reader."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.aggregation.hostile.naive import Tensors, Unsound, values

Layout = dict[str, tuple[str, tuple[int, ...]]]
Document = Mapping[str, Any]


def kept(codec: Document, length: int) -> int:
    """How many values of a block TopK keeps."""
    return min(length, math.ceil(codec["fraction"] * length))


def blocks(codec: Document, count: int) -> list[tuple[int, int]]:
    size = codec["block"]
    return [(at, min(at + size, count)) for at in range(0, count, size)]


def carriers(name: str, shape: tuple[int, ...], codec: Document | None) -> Layout:
    """What an update holds of a parameter."""
    count = math.prod(shape)
    if codec is None:
        return {name: ("F32", shape)}
    if codec["name"] == "BFloat16":
        return {name: ("BF16", shape)}
    if codec["name"] == "Int8":
        scales = len(blocks(codec, count))
        return {name: ("I8", shape), f"{name}:scales": ("F32", (scales,))}
    total = sum(kept(codec, stop - start) for start, stop in blocks(codec, count))
    return {name: ("F32", (total,)), f"{name}:indices": ("I16", (total,))}


def decoded(
    found: Tensors, name: str, shape: tuple[int, ...], codec: Document | None
) -> np.ndarray:
    """The parameter's values, flat. Raises Unsound for what no encoder makes."""
    count = math.prod(shape)
    first = values(found[name][0], found[name][2])
    if codec is None or codec["name"] == "BFloat16":
        return first
    if codec["name"] == "Int8":
        return _from_int8(first, values("F32", found[f"{name}:scales"][2]), codec, count)
    places = np.frombuffer(found[f"{name}:indices"][2], "<u2")
    return _from_topk(first, places, codec, count)


def _from_int8(whole: np.ndarray, scales: np.ndarray, codec: Document, count: int) -> np.ndarray:
    out = np.zeros(count, np.float32)
    for scale, (start, stop) in zip(scales, blocks(codec, count), strict=True):
        if not math.isfinite(scale) or math.copysign(1, scale) < 0:
            raise Unsound("a scale that is none")
        for k in range(start, stop):
            if whole[k] == -128:
                raise Unsound("-128")
            with np.errstate(over="ignore"):
                out[k] = np.float32(whole[k]) * scale
    return out


def _from_topk(chosen: np.ndarray, places: np.ndarray, codec: Document, count: int) -> np.ndarray:
    out = np.zeros(count, np.float32)
    at = 0
    for start, stop in blocks(codec, count):
        last = -1
        for _ in range(kept(codec, stop - start)):
            if not last < places[at] < stop - start:
                raise Unsound("an index that is twice, unsorted or beyond its block")
            last = int(places[at])
            out[start + last] = chosen[at]
            at += 1
    return out
