"""How fast, and in how much memory, the aggregator turns update files into a global model.

    python -m benchmarks.aggregation                       # 8 updates of 400 MB, fp32
    python -m benchmarks.aggregation --updates 4 --megabytes 100 --threads 1

The whole process is measured, from its start to its exit: `python -m fedtrain.aggregation`, with
inspection in child processes, two passes of sha256 over every update, the fold, and the flushed
result. The same run measures what the machine can do at all: reading the files, and sha256.
Absolute times drift between machines and hours; quote ratios taken in one run.
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.contract import (
    MANIFEST_FILE,
    MODEL_FILE,
    SCHEMA_FILE,
    UPDATE_FILE,
    AggregateTask,
    ModelRef,
    Receipt,
    encode_task,
    global_folder,
    update_folder,
)
from fedtrain.manifest import Manifest
from fedtrain.publication import Publication
from fedtrain.schema import Schema, TensorSpec
from fedtrain.tensorfile import PIECE_BYTES, TensorWriter

TRAINER = Path(__file__).parents[1] / "trainer"
UID = "be9c4000-0000-4000-8000-000000000000"
MIB = 1024 * 1024


def measure(
    updates: int = 8, megabytes: int = 400, threads: int | None = None, folder: str | None = None
) -> dict[str, Any]:
    """One aggregation of `updates` files of `megabytes` each, in a folder that is removed.

    Seconds, bytes, GB/s of input; seconds of processor, which other work on the machine stretches
    less; peak memory as the kernel saw it: `peakAnonymous` sums RssAnon of the process and its
    children at the same moment (sampled every 10 ms), `peakResident` is the largest VmHWM.
    """
    threads = threads or min(len(os.sched_getaffinity(0)), 8)
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-", dir=folder) as name:
        root = Path(name)
        task = _exchange(root, updates, megabytes * 1_000_000)
        files = [root / update_folder(p, 1, 1) / UPDATE_FILE for p, _ in task.candidates]
        read = _bandwidth(files, threads, _read)
        hashed = _bandwidth(files, threads, _hash)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, memory, output = _run(task, root, threads)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        nbytes = sum(file.stat().st_size for file in files)
    return {
        "updates": updates,
        "megabytes": megabytes,
        "threads": threads,
        "bytes": nbytes,
        "seconds": seconds,
        "cpuSeconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "inputGBs": nbytes / seconds / 1e9,
        "readGBs": read,
        "sha256GBs": hashed,
        "peakAnonymous": memory["anonymous"],
        "peakResident": memory["resident"],
        "output": output,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    title = f"{figures['updates']} updates of {figures['megabytes']} MB, fp32, "
    rows = [
        ("seconds, start to exit", f"{figures['seconds']:.2f}"),
        ("seconds of processor", f"{figures['cpuSeconds']:.2f}"),
        ("input", f"{figures['inputGBs']:.2f} GB/s"),
        ("reading the same files in this run", f"{figures['readGBs']:.2f} GB/s"),
        ("reading and sha256 in this run", f"{figures['sha256GBs']:.2f} GB/s"),
        ("peak anonymous memory, children included", f"{figures['peakAnonymous'] / MIB:.0f} MiB"),
        ("peak resident memory of one process", f"{figures['peakResident'] / MIB:.0f} MiB"),
    ]
    lines = [f"| {title}{figures['threads']} threads | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])


def _exchange(root: Path, updates: int, nbytes: int) -> AggregateTask:
    """A global model and `updates` updates of it, in layers of 64 MB as transformers have them."""
    layer = 16_000_000
    counts = [layer] * (nbytes // 4 // layer) + [nbytes // 4 % layer]
    specs = [
        TensorSpec(name=f"layer.{number:03}.weight", dtype="F32", shape=(count,))
        for number, count in enumerate(counts)
    ]
    schema = Schema.of(specs)
    with Publication(root / global_folder(0, 1), MANIFEST_FILE) as publication:
        digest, size = _write(publication.path / MODEL_FILE, schema, 0)
        manifest = Manifest(training=UID, round=0, n=1, base=None, digest=digest, size=size)
        publication.commit(manifest.to_json(), {SCHEMA_FILE: schema.to_json()})
    names = [f"p{number:03}" for number in range(updates)]
    for number, name in enumerate(names):
        with Publication(root / update_folder(name, 1, 1)) as publication:
            said, size = _write(publication.path / UPDATE_FILE, schema, number + 1)
            receipt = Receipt(
                training=UID,
                round=1,
                participant=name,
                attempt=1,
                base=digest,
                digest=said,
                size=size,
                samples=100 + number,
            )
            publication.commit(receipt.to_json())
    return AggregateTask(
        training="bench",
        uid=UID,
        round=1,
        attempt=1,
        model=ModelRef(path=global_folder(0, 1), digest=digest),
        output=global_folder(1, 1),
        candidates=tuple((name, 1) for name in names),
        minimum=updates,
    )


def _write(path: Path, schema: Schema, seed: int) -> tuple[str, int]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=0.01, size=1 << 20).astype(np.float32)
    with TensorWriter(path, schema.layout()) as writer:
        for spec in schema.tensors:
            for start in range(0, spec.shape[0], noise.size):
                piece = noise[: min(noise.size, spec.shape[0] - start)]
                writer.write(spec.name, start, np.roll(piece, start // noise.size))
        return writer.digest(), writer.size


def _bandwidth(files: list[Path], threads: int, use: Callable[[Path], None]) -> float:
    """GB/s of `use` over the files, the best of two, so that the page cache is warm."""
    nbytes = sum(file.stat().st_size for file in files)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(2):
            began = time.perf_counter()
            list(pool.map(use, files))
            best = min(best, time.perf_counter() - began)
    return nbytes / best / 1e9


def _pieces(path: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(PIECE_BYTES))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def _read(path: Path) -> None:
    for _ in _pieces(path):
        pass


def _hash(path: Path) -> None:
    whole = hashlib.sha256()
    for piece in _pieces(path):
        whole.update(piece)


def _run(task: AggregateTask, root: Path, threads: int) -> tuple[float, dict[str, int], str]:
    """Seconds, memory and output of the aggregator's process; raises if it does not exit 0."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(TRAINER),
        "FEDTRAIN_TASK": encode_task(task),
        "FEDTRAIN_ROOT": str(root),
        "FEDTRAIN_THREADS": str(threads),
        "FEDTRAIN_TERMINATION_LOG": str(root / "message"),
    }
    peak = {"anonymous": 0, "resident": 0}
    began = time.perf_counter()
    command = [sys.executable, "-m", "fedtrain.aggregation"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            anonymous, resident = _memory(process.pid)
            peak["anonymous"] = max(peak["anonymous"], anonymous)
            peak["resident"] = max(peak["resident"], resident)
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        output = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        raise RuntimeError(f"the aggregator exited {process.returncode}: {output}")
    return seconds, peak, output


def _memory(pid: int) -> tuple[int, int]:
    """RssAnon of a process and its children together, and the largest VmHWM among them."""
    anonymous = resident = 0
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [str(pid), *children]:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{one}/status").read_text().splitlines():
                    if line.startswith("RssAnon:"):
                        anonymous += int(line.split()[1]) * 1024
                    elif line.startswith("VmHWM:"):
                        resident = max(resident, int(line.split()[1]) * 1024)
    return anonymous, resident


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=400, help="of each update")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--folder", default=None, help="where to put the files")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    needed = (options.updates + 3) * options.megabytes * 1_000_000
    if shutil.disk_usage(options.folder or tempfile.gettempdir()).free < needed:
        parser.error(f"--folder: {needed / 1e9:.1f} GB are needed there")
    figures = measure(options.updates, options.megabytes, options.threads, options.folder)
    print(json.dumps(figures) if options.json else table(figures))


if __name__ == "__main__":
    main()
