"""How fast updates in memory are averaged: by us, by Flower, by FLARE, by a naive torch loop.

One process, the same tensors for all, the contestants in turn, so that whatever else the machine
does meets all of them. The yardstick is how fast the same threads can read the same bytes:
numpy's maximum over them as 64-bit words, the fastest reader that numpy has. Ours is measured
twice: with a result that is allocated each time, as the others do it, and with one that is not, as
in the aggregator, which never holds a whole model; and once more in numpy alone, where "fedtrain"
has the compiled kernel.
"""

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import page, peers
from benchmarks.peers import Array, Mean
from fedtrain.aggregation.inmemory import mean_of
from fedtrain.aggregation.kernel import kernel
from fedtrain.aggregation.sums import widened

FRESH = "fedtrain, fresh result"
IN_NUMPY = "fedtrain, numpy alone"
READER = "the reader (numpy max over 64-bit words)"
LAYER = 16_000_000
SAMPLE = 1 << 20
"""Elements of each tensor whose error is taken; all of them would take longer than the rest."""

MOST_PARAMETERS = 201_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One contestant in one case.

    seconds: of each repetition. others: part of the processors that went elsewhere, the median.
    error: of the mean, relative to its norm. promised: relative to the norm of sum w|delta|. Both
    the worst tensor's.
    """

    who: str
    participants: int
    dtype: str
    parameters: int
    nbytes: int
    seconds: tuple[float, ...]
    others: float
    error: float | None = None
    promised: float | None = None

    @property
    def rate(self) -> float:
        """GB/s of input, the median."""
        return self.nbytes / statistics.median(self.seconds) / 1e9


def measure(
    participants: Sequence[int] = (2, 8, 64),
    repeat: int = 7,
    threads: int = 2,
    budget: int | None = None,
) -> list[Measured]:
    """budget: bytes of fp32 input at most; by default what memory allows, Flower's copy too."""
    import torch

    torch.set_num_threads(threads)
    peers.installed()
    found = []
    for count in participants:
        parameters = min(MOST_PARAMETERS, (budget or _budget()) // (4 * count))
        updates = _updates(count, parameters)
        for dtype in ("fp32", "bf16"):
            if dtype == "bf16":
                for update in updates:
                    for name, array in update.items():
                        update[name] = (array.view(np.uint32) >> 16).astype(np.uint16)
            found += _contest(updates, dtype, repeat, threads)
            gc.collect()
    return found


def table(figures: Sequence[Measured]) -> str:
    """A Markdown table with a row for each contestant, and ratios taken in the same run."""
    lines = [
        "| K | dtype | parameters | who | GB/s of input, median (slowest, fastest) | of the reader "
        "| fedtrain is | error of the mean | of sum w\\|delta\\| | others took |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_case: dict[tuple[int, str], dict[str, Measured]] = {}
    for one in figures:
        by_case.setdefault((one.participants, one.dtype), {})[one.who] = one
    for case in by_case.values():
        ours, reader = case["fedtrain"], case[READER]
        for one in case.values():
            rates = sorted(one.nbytes / second / 1e9 for second in one.seconds)
            times = "" if one in (ours, reader) else f"{ours.rate / one.rate:.2f} times"
            cells = [
                f"{one.participants}",
                one.dtype,
                f"{one.parameters / 1e6:.1f} M",
                one.who,
                f"{one.rate:.2f} ({rates[0]:.2f}, {rates[-1]:.2f})",
                f"{one.rate / reader.rate:.0%}",
                times,
                "" if one.error is None else f"{one.error:.1e}",
                "" if one.promised is None else f"{one.promised:.1e}",
                f"{one.others:.0%}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _budget() -> int:
    with open("/proc/meminfo") as file:
        available = next(int(x.split()[1]) * 1024 for x in file if x.startswith("MemAvailable"))
    return min(6_432_000_000, available // 3)


def _updates(participants: int, parameters: int) -> list[dict[str, Array]]:
    """Small deltas in layers of 64 MB, as transformers have them."""
    noise = np.random.default_rng(7).normal(scale=0.01, size=1 << 20).astype(np.float32)
    sizes = [LAYER] * (parameters // LAYER) + [parameters % LAYER] * bool(parameters % LAYER)
    return [
        {
            f"layer.{number:03}.weight": np.resize(np.roll(noise, 7919 * k + 31 * number), size)
            for number, size in enumerate(sizes)
        }
        for k in range(participants)
    ]


def _contest(
    updates: Sequence[Mapping[str, Array]], dtype: str, repeat: int, threads: int
) -> list[Measured]:
    weights = [50 + 37 * k % 101 for k in range(len(updates))]
    there = {name: np.zeros(array.shape, np.float32) for name, array in updates[0].items()}
    contestants: dict[str, Mean | Callable[[], None]] = {
        READER: lambda: _read(updates, threads),
        "fedtrain": lambda: mean_of(updates, weights, threads, out=there),
        FRESH: lambda: mean_of(updates, weights, threads),
        "FLARE 2.9": peers.flare(updates, weights),
        "torch loop": peers.torch_loop(updates, weights),
    }
    if kernel() is not None:
        contestants[IN_NUMPY] = lambda: _in_numpy(updates, weights, threads, there)
    if dtype == "fp32":  # numpy, and so Flower, has no bf16
        contestants["Flower 1.41"] = peers.flower(updates, weights)
    taken: dict[str, list[page.Timing]] = {who: [] for who in contestants}
    errors: dict[str, tuple[float, float]] = {}
    for who, contestant in contestants.items():  # warms up, too
        result = contestant()
        if result is not None:
            errors[who] = _errors(updates, weights, result)
        del result
    for _ in range(repeat):
        for who, contestant in contestants.items():
            taken[who].append(page.timed(contestant))
    parameters = sum(array.size for array in updates[0].values())
    nbytes = sum(array.nbytes for update in updates for array in update.values())
    return [
        Measured(
            who=who,
            participants=len(updates),
            dtype=dtype,
            parameters=parameters,
            nbytes=nbytes,
            seconds=tuple(one.seconds for one in timings),
            others=statistics.median(one.others for one in timings),
            error=errors.get(who, (None, None))[0],
            promised=errors.get(who, (None, None))[1],
        )
        for who, timings in taken.items()
    ]


def _in_numpy(
    updates: Sequence[Mapping[str, Array]],
    weights: Sequence[int],
    threads: int,
    out: Mapping[str, Array],
) -> Mapping[str, Array]:
    with mock.patch("fedtrain.aggregation.sums.kernel", return_value=None):
        return mean_of(updates, weights, threads, out=out)


def _read(updates: Sequence[Mapping[str, Array]], threads: int) -> None:
    words = [array[: array.size // 4 * 4] for update in updates for array in update.values()]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda array: array.view(np.uint64).max(), words))


def _errors(
    updates: Sequence[Mapping[str, Array]], weights: Sequence[int], result: Mapping[str, Any]
) -> tuple[float, float]:
    """Against fp64, over the first `SAMPLE` elements of each tensor: (of the mean, as promised)."""
    room = np.empty(SAMPLE, np.float32)
    worst = (0.0, 0.0)
    for name in updates[0]:
        size = min(SAMPLE, updates[0][name].size)
        exact, absolute = np.zeros((2, size))
        for update, weight in zip(updates, weights, strict=True):
            term = widened(update[name][:size], room) * np.float64(weight / sum(weights))
            exact += term
            absolute += np.abs(term)
        off = float(np.linalg.norm(peers.as_numpy(result[name])[:size] - exact))
        of_mean, of_sum = off / np.linalg.norm(exact), off / np.linalg.norm(absolute)
        worst = (max(worst[0], float(of_mean)), max(worst[1], float(of_sum)))
    return worst
