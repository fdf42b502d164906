"""Is a piece of an update fit to be summed? Its values are finite and of this world.

The look costs as little as it can: sums of squares of rows of 1,024, in fp32, which are not finite
if a value is not. Only a row that stands out is looked at again, in fp64. Rows begin at multiples
of 1,024 of the tensor and are summed one after another, so that a norm does not depend on how much
is read at once.
"""

from typing import Any, cast

import numpy as np

from fedtrain.aggregation.units import ROW

Array = np.ndarray[Any, Any]
LARGEST = 2.0**56
"""Of a value of an update (7.2e16). A mean of such values is less than half of the distance between
fp32 numbers from 2**81 on, so it cannot move a model that is there already; and its square, summed
over a thousand rounds by an adaptive server optimizer, stays far below 2**128, fp32's end."""

_LEAST, _MOST = 2.0**-80, 2.0**112
"""Sums of 1,024 squares in fp32 outside of this are taken again: they lose small values."""


class Refused(ValueError):
    """Why a candidate is not accepted: a CamelCase reason and one sentence for its owner."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def squares_of(piece: Array, name: str, running: float) -> float:
    """`running` and the sum of squares of flat fp32 values. Raises Refused: NotFinite, TooLarge.

    The caller has told numpy that an overflow is no news.
    """
    whole = piece.size // ROW * ROW
    sums = [np.array([running])]
    for rows in (piece[:whole].reshape(-1, ROW), piece[whole:].reshape(1, -1)):
        if rows.size:
            sums.append(_rows(rows, name))
    return float(np.add.accumulate(np.concatenate(sums))[-1])


def _rows(rows: Array, name: str) -> Array:
    sums = np.einsum("ij,ij->i", rows, rows).astype(np.float64)
    odd = ~((sums >= _LEAST) & (sums <= _MOST))
    if odd.any():
        # In fp64 squares of fp32 cannot overflow: so a sum is finite iff all its values are.
        wide = rows[odd].astype(np.float64)
        sums[odd] = exact = np.einsum("ij,ij->i", wide, wide)
        if not np.isfinite(exact).all():
            raise Refused("NotFinite", f"tensor {name[:80]!a} holds NaN or infinity")
        if exact.max() > LARGEST**2 and np.abs(wide).max() > LARGEST:
            raise Refused("TooLarge", f"tensor {name[:80]!a} holds values beyond {LARGEST:.1e}")
    return cast("Array", sums)


def largest_of(piece: Array) -> float:
    """The largest magnitude; 0 of nothing."""
    return max(float(piece.max()), -float(piece.min())) if piece.size else 0.0
