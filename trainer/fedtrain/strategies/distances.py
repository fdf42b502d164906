"""Distances from inner products, in fp64.

||x - y||² = <x, x> - 2 <x, y> + <y, y>. What rounding leaves below zero is zero. Of two updates
equal bit by bit it leaves exactly zero, so that ties stay ties, if equal rows had equal products:
BLAS keeps to that on some machines (AVX2) and not on others (AVX-512), where rounding decides ties.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def squared_distances(products: Array) -> Array:
    """(K, K) inner products → (K, K) squared distances, symmetric, with a zero diagonal."""
    squares = np.diagonal(products)
    squared: Array = np.maximum(np.add.outer(squares, squares) - 2 * products, 0.0)
    np.fill_diagonal(squared, 0.0)
    return squared


def distances_to(products: Array, coefficients: Array) -> Array:
    """(K,): from each vector to their linear combination sum_k c_k x_k."""
    with_combination = (products * coefficients).sum(axis=1)
    square = (coefficients * with_combination).sum()
    squared = np.diagonal(products) - 2 * with_combination + square
    distances: Array = np.sqrt(np.maximum(squared, 0.0))
    return distances
