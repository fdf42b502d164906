"""Sums of low-rank products, in fp64, of which out × in numbers are never formed.

W = Σ wᵢ Bᵢ Aᵢ = [w₁B₁ … w_kB_k] · [A₁; …; A_k]; thin QR of both factors leaves a core of at most
(Σ rᵢ)², whose SVD is that of W. Its first r terms are the best approximation of rank r in the
Frobenius norm (Eckart and Young 1936).
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

Array = np.ndarray[Any, Any]
Term = tuple[float, Array, Array]
"""(weight, B of (out, r), A of (r, in)); each term has a rank of its own."""


def summed(terms: Sequence[Term], previous: Array) -> tuple[Array, Array]:
    """(B, A) of the rank of `previous`: B = U·S, A = Vᵀ of the sum of the terms' products.

    previous: (rank, in). Where a singular value is zero, B's column is zero and the row of A that
    of `previous`, so that gradients flow. The largest number of each new row of A is positive.
    """
    wide, tall = _stacked(terms)
    left, upper = np.linalg.qr(wide)
    right, lower = np.linalg.qr(tall.T)
    u, s, vt = np.linalg.svd(upper @ lower.T, full_matrices=False)
    least = s[:1].max(initial=0.0) * np.finfo(np.float64).eps * max(upper.shape[0], lower.shape[0])
    rank = len(previous)
    kept = min(rank, int((s > least).sum()))
    b, a = np.zeros((len(wide), rank)), previous.astype(np.float64)
    b[:, :kept] = (left @ u[:, :kept]) * s[:kept]
    a[:kept] = vt[:kept] @ right.T
    # A singular vector has no sign of its own.
    signs = np.sign(np.take_along_axis(a, np.abs(a).argmax(axis=1)[:, None], axis=1))[:kept]
    a[:kept] *= signs
    b[:, :kept] *= signs.T
    return b, a


def residual(b: Array, a: Array, terms: Sequence[Term]) -> tuple[float, float]:
    """(‖b·a − W‖, ‖W‖) in the Frobenius norm, where W is the sum of the terms' products."""
    difference = _norm(*_stacked([(-1.0, b, a), *terms]))
    return difference, _norm(*_stacked(terms))


def relative(parts: Sequence[tuple[float, float]]) -> float:
    """Of several residuals as of one: the root of the sums of their squares, as a quotient."""
    difference = math.sqrt(sum(one * one for one, _ in parts))
    whole = math.sqrt(sum(one * one for _, one in parts))
    return difference / whole if whole else difference


def _stacked(terms: Sequence[Term]) -> tuple[Array, Array]:
    """(out, Σ rᵢ) with the weights, (Σ rᵢ, in)."""
    return (
        np.hstack([weight * b.astype(np.float64) for weight, b, _ in terms]),
        np.vstack([a.astype(np.float64) for _, _, a in terms]),
    )


def _norm(wide: Array, tall: Array) -> float:
    """Of the product of two matrices that share a short side."""
    upper = cast("Array", np.linalg.qr(wide, mode="r"))  # numpy's types know of Q and R alone
    lower = cast("Array", np.linalg.qr(tall.T, mode="r"))
    return float(np.linalg.norm(upper @ lower.T))
