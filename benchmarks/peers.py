"""The others, by their own public classes: each a function that averages updates in memory.

`installed()` puts what benchmarks/requirements.txt pins into a cached folder, keyed by what it is
made of, as `.ci/venv` does it for the rest.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Mean = Callable[[], Mapping[str, Any]]
"""Does the work that is timed; what it returns has numpy's or torch's tensors by name."""

REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def installed() -> str:
    """Where the peers are installed; their folder is last on sys.path afterwards."""
    key = hashlib.sha256(sys.version.encode() + REQUIREMENTS.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("FEDTRAIN_CACHE") or "~/.cache/fedtrain").expanduser()
    folder = cache / f"peers-{key}"
    if not folder.exists():
        making = cache / f"peers-{key}.{os.getpid()}"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        where = ["--no-deps", "--target", str(making), "-r", str(REQUIREMENTS)]
        try:
            subprocess.run([*pip, *where], check=True)
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    return str(folder)


def flower(updates: Sequence[Mapping[str, Array]], weights: Sequence[int]) -> Mean:
    """Flower 1.41: the records are made beforehand, as they lie in memory when replies are in."""
    from flwr.app import Array as FlowerArray
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({name: FlowerArray(a) for name, a in update.items()}),
                "metrics": MetricRecord({"num-examples": weight}),
            }
        )
        for update, weight in zip(updates, weights, strict=True)
    ]

    return lambda: aggregate_arrayrecords(records, "num-examples")


def flare(updates: Sequence[Mapping[str, Array]], weights: Sequence[int]) -> Mean:
    """FLARE 2.9 with torch tensors, which it sums in place (numpy's would be copied each time)."""
    from nvflare.app_common.aggregators.weighted_aggregation_helper import (
        WeightedAggregationHelper,
    )

    tensors = [as_torch(update) for update in updates]

    def mean() -> Mapping[str, Any]:
        helper = WeightedAggregationHelper()
        for number, (update, weight) in enumerate(zip(tensors, weights, strict=True)):
            helper.add(update, weight, f"site-{number}", 0)
        found: Mapping[str, Any] = helper.get_result()
        return found

    return mean


def torch_loop(updates: Sequence[Mapping[str, Array]], weights: Sequence[int]) -> Mean:
    """What one writes first: an fp32 accumulator per tensor, `add_` of each update in turn."""
    import torch

    tensors = [as_torch(update) for update in updates]
    whole = sum(weights)

    def mean() -> Mapping[str, Any]:
        found = {name: torch.zeros(t.shape) for name, t in tensors[0].items()}
        for update, weight in zip(tensors, weights, strict=True):
            for name, tensor in update.items():
                found[name].add_(tensor.float(), alpha=weight / whole)
        return found

    return mean


def as_torch(update: Mapping[str, Array]) -> dict[str, Any]:
    """The same memory as torch's tensors; uint16 holds the bits of bf16."""
    import torch

    return {
        name: torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        if array.dtype == np.uint16
        else torch.from_numpy(array)
        for name, array in update.items()
    }


def as_numpy(tensor: Any) -> Array:
    """fp32 of whatever a mean has returned; Flower's arrays know how to become numpy's."""
    if hasattr(tensor, "detach"):
        tensor = tensor.float()
    return np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor)
