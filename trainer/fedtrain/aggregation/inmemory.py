"""The weighted mean of updates that are in memory: what tests and benchmarks compare with others.

The aggregator itself never holds a whole update; the sums and the cut into pieces are the same.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fedtrain.aggregation.sums import PIECE_BYTES, Array, exponent_of, sum_of, widened


def mean_of(
    updates: Sequence[Mapping[str, Array]],
    weights: Sequence[float],
    threads: int = 1,
    precision: str = "Float32",
    out: Mapping[str, Array] | None = None,
) -> Mapping[str, Array]:
    """fp32 in the shapes of the updates, which hold fp32, fp16 or the uint16 bits of bf16.

    weights: any positive numbers; they are divided by their sum. out: arrays to put the mean into.
    """
    whole = math.fsum(weights)
    coefficients = [weight / whole for weight in weights]
    mean = out or {name: np.empty(array.shape, np.float32) for name, array in updates[0].items()}
    flat = {name: [update[name].reshape(-1) for update in updates] for name in mean}
    exponents = {name: _exponent(flat[name]) if precision == "Exact" else 0 for name in mean}
    pieces = _pieces({name: values[0] for name, values in flat.items()})
    lock = threading.Lock()

    def work() -> None:
        running = sum_of(precision)
        while True:
            with lock:
                piece = next(pieces, None)
            if piece is None:
                return
            name, start, stop = piece
            running.start(stop - start, exponents[name])
            for value, coefficient in zip(flat[name], coefficients, strict=True):
                running.add(value[start:stop], coefficient)
            mean[name].reshape(-1)[start:stop] = running.result()

    with ThreadPoolExecutor(threads) as pool:
        for worker in [pool.submit(work) for _ in range(threads)]:
            worker.result()
    return mean


def _pieces(arrays: Mapping[str, Array]) -> Iterator[tuple[str, int, int]]:
    for name, array in arrays.items():
        step = PIECE_BYTES // array.itemsize
        for start in range(0, array.size, step):
            yield name, start, min(start + step, array.size)


def _exponent(values: Sequence[Array]) -> int:
    room = np.empty(values[0].size, np.float32)
    largest = [np.abs(widened(value, room)).max(initial=0.0) for value in values]
    return exponent_of(float(max(largest)))
