"""How fast, and in how much memory, the aggregator turns update files into a global model.

The whole process is measured, from its start to its exit: `python -m fedtrain.aggregation`, with
intake in child processes, sha256 of every byte, the sums, and the flushed result. Cold: nothing of
our files is in the page cache. Warm: all of it is, if it fits. Beside it, in turn with it, `fio`
does the same reads and writes unbuffered, and once each the files are read and hashed.
"""

import contextlib
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import disk, exchange
from fedtrain import pagecache
from fedtrain.contract import (
    MODEL_FILE,
    UPDATE_FILE,
    AggregateTask,
    encode_task,
    update_folder,
)
from fedtrain.tensorfile import PIECE_BYTES

TRAINER = Path(__file__).parents[1] / "trainer"
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`updates` files of `megabytes` (10**6 bytes) each; cold and warm are measured this often."""

    updates: int
    megabytes: int
    repeat: int


CASES = (
    Case(updates=8, megabytes=400, repeat=7),
    Case(updates=8, megabytes=2000, repeat=3),
    Case(updates=64, megabytes=100, repeat=3),
)


QUICK = (
    Case(updates=8, megabytes=400, repeat=3),
    Case(updates=64, megabytes=100, repeat=1),
    Case(updates=8, megabytes=2000, repeat=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds of each run. read, written: bytes of an aggregation. anonymous: RssAnon of the
    process and its children at the same moment, sampled every 10 ms, the largest; resident: the
    largest VmHWM of one of them."""

    case: Case
    threads: int
    read: int
    written: int
    cold: tuple[float, ...]
    warm: tuple[float, ...]
    fio: tuple[float, ...]
    processor: float
    reading: float
    hashing: float
    anonymous: int
    resident: int


def measure(case: Case, threads: int | None = None, folder: str | None = None) -> Measured:
    """In a folder that is removed again. Raises RuntimeError for an aggregation that failed."""
    threads = threads or min(len(os.sched_getaffinity(0)), 8)
    needed = (case.updates + 3) * case.megabytes * 1_000_000
    if shutil.disk_usage(folder or tempfile.gettempdir()).free < needed:
        raise RuntimeError(f"{needed / 1e9:.1f} GB are needed for {case}: say --folder")
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-", dir=folder) as name:
        root = Path(name)
        task = exchange.made(root, case.updates, case.megabytes * 1_000_000)
        base = root / task.model.path / MODEL_FILE
        files = [base, *(root / update_folder(p, 1, 1) / UPDATE_FILE for p, _ in task.candidates)]
        cold: list[float] = []
        warm: list[float] = []
        fio: list[float] = []
        processor: list[float] = []
        memory: list[dict[str, int]] = []
        for _ in range(case.repeat):
            for runs, prepare in ((cold, _forget), (warm, _fetch)):
                prepare(files)
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds, peak = _run(task, root, threads)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                shutil.rmtree(root / task.output)
                runs.append(seconds)
                processor.append(used)
                memory.append(peak)
            _forget(files)
            best = disk.seconds(files, base.stat().st_size, root)
            fio += [] if best is None else [best]
        return Measured(
            case=case,
            threads=threads,
            read=sum(file.stat().st_size for file in files),
            written=base.stat().st_size,
            cold=tuple(cold),
            warm=tuple(warm),
            fio=tuple(fio),
            processor=statistics.median(processor),
            reading=_bandwidth(files, threads, _read),
            hashing=_bandwidth(files, threads, _hash),
            anonymous=max(one["anonymous"] for one in memory),
            resident=max(one["resident"] for one in memory),
        )


def table(figures: Sequence[Measured]) -> str:
    """A Markdown table with a column for each case; GB/s count what is read and what is written."""

    def seconds(of: Callable[[Measured], tuple[float, ...]]) -> Callable[[Measured], str]:
        def cell(one: Measured) -> str:
            taken = sorted(of(one))
            if not taken:
                return "not installed"
            rate = (one.read + one.written) / statistics.median(taken) / 1e9
            spread = f"{taken[0]:.2f}-{taken[-1]:.2f}"
            return f"{statistics.median(taken):.2f} s ({spread}), {rate:.2f} GB/s"

        return cell

    def part(one: Measured) -> str:
        if not one.fio:
            return "unknown"
        return f"{statistics.median(one.fio) / statistics.median(one.cold):.0%}"

    rows: dict[str, Callable[[Measured], str]] = {
        "cold, start to exit: median (fastest-slowest)": seconds(lambda one: one.cold),
        "warm": seconds(lambda one: one.warm),
        "fio, direct, the same reads and writes": seconds(lambda one: one.fio),
        "cold, of what fio reaches": part,
        "seconds of processor, median": lambda one: f"{one.processor:.2f}",
        "reading the files, warm": lambda one: f"{one.reading:.2f} GB/s",
        "reading and sha256, warm": lambda one: f"{one.hashing:.2f} GB/s",
        "peak anonymous memory, children included": lambda one: f"{one.anonymous / MIB:.0f} MiB",
        "peak resident memory of one process": lambda one: f"{one.resident / MIB:.0f} MiB",
    }
    titles = [
        f"{one.case.updates} updates of {one.case.megabytes} MB, {one.threads} threads, "
        f"{one.case.repeat} runs"
        for one in figures
    ]
    lines = [f"| from files to file | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, cell in rows.items():
        lines.append(f"| {name} | {' | '.join(cell(one) for one in figures)} |")
    return "\n".join(lines)


def _forget(files: Sequence[Path]) -> None:
    """Out of the page cache with them: they are flushed, so advice is enough."""
    for file in files:
        with open(file, "rb") as opened:
            pagecache.forget(opened.fileno())


def _fetch(files: Sequence[Path]) -> None:
    for file in files:
        _read(file)


def _bandwidth(files: Sequence[Path], threads: int, use: Callable[[Path], None]) -> float:
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


def _run(task: AggregateTask, root: Path, threads: int) -> tuple[float, dict[str, int]]:
    """Seconds and memory of the aggregator's process; raises if it does not exit 0."""
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
    return seconds, peak


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
