"""Rows in order, coordinate by coordinate: what the coordinatewise rules are made of."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedtrain.strategies.mean import weighted_mean

Array = np.ndarray[Any, Any]

NETWORK_LIMIT = 64
"""Rows up to which a sorting network is faster than sorting each column (2 to 10 times)."""

BLOCK = 4096
"""Columns that are transposed at a time to be sorted: they fit the cache with some hundred rows."""


def ordered(rows: list[Array]) -> list[Array]:
    """Flat arrays of one length → as many, per coordinate from the smallest to the largest.

    Overwrites both the list and the arrays. Of two zeros of different sign either may come first.
    """
    return _by_network(rows) if len(rows) <= NETWORK_LIMIT else _by_blocks(rows)


def _by_network(rows: list[Array]) -> list[Array]:
    """Compare and exchange whole rows; the spare row makes that two passes and no copy."""
    spare = np.empty_like(rows[0])
    for low, high in network(len(rows)):
        np.minimum(rows[low], rows[high], out=spare)
        np.maximum(rows[low], rows[high], out=rows[high])
        rows[low], spare = spare, rows[low]
    return rows


def _by_blocks(rows: list[Array]) -> list[Array]:
    for start in range(0, rows[0].size, BLOCK):
        block = np.stack([row[start : start + BLOCK] for row in rows], axis=1)
        block.sort(axis=1)
        for row, values in zip(rows, block.T, strict=True):
            row[start : start + BLOCK] = values
    return rows


@lru_cache(maxsize=8)
def network(count: int) -> tuple[tuple[int, int], ...]:
    """The comparators of Batcher's odd-even merge sort (Knuth, TAOCP 3, 5.2.2, Algorithm M)."""
    return tuple(_comparators(count))


def _comparators(count: int) -> Iterator[tuple[int, int]]:
    p = 1
    while p < count:
        k = p
        while k >= 1:
            for j in range(k % p, count - k, 2 * k):
                for i in range(j, min(j + k, count - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        yield i, i + k
            k //= 2
        p *= 2


def middle(rows: Sequence[Array]) -> Array:
    """The median of ordered rows; of an even number the mean of the two in the middle."""
    half = len(rows) // 2
    if len(rows) % 2:
        return rows[half]
    return np.multiply(np.add(rows[half - 1], rows[half]), 0.5)


def mean(rows: Sequence[Array]) -> Array:
    """The plain mean of rows, in their order."""
    return weighted_mean(rows, np.full(len(rows), 1 / len(rows), np.float32))


def unsigned_zeros(values: Array) -> Array:
    """A copy with 0.0 for -0.0: which of the two an ordering puts first depends on the machine."""
    copy: Array = values + 0.0
    return copy
