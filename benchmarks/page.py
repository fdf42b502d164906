"""A page of results: what the figures hang on, and where it is kept."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import fedtrain

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Processor, memory, kernel, Python, and what else is going on at this moment."""
    with open("/proc/cpuinfo") as file:
        model = next((x.split(":")[1].strip() for x in file if x.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; load average at the start {load}"
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of wall time, and the part of all processors that others took meanwhile."""

    seconds: float
    others: float


def timed(act: Callable[[], object], wait: float = 5.0, tries: int = 3) -> Timing:
    """Do it at a quiet moment, waited for as long as `wait` seconds.

    Where others took more than a tenth of the processors all the same it is done again, and the
    least disturbed of all tries counts: a median of disturbed ones measures the neighbours.
    """
    tried = []
    for _ in range(tries):
        wait_for_quiet(wait)
        before, used, began = _processor_times(), time.process_time(), time.perf_counter()
        act()
        seconds, used = time.perf_counter() - began, time.process_time() - used
        spent = [after - first for first, after in zip(before, _processor_times(), strict=True)]
        busy = (sum(spent) - sum(spent[_IDLE])) / os.sysconf("SC_CLK_TCK")
        tried.append(Timing(seconds, max(0.0, busy - used) / (seconds * (os.cpu_count() or 1))))
        if tried[-1].others <= 0.1:
            break
    return min(tried, key=lambda one: one.others)


def wait_for_quiet(most: float) -> None:
    """Until nine tenths of the processors have nothing to do, or for `most` seconds."""
    until = time.monotonic() + most
    while time.monotonic() < until:
        before = _processor_times()
        time.sleep(0.2)
        spent = [after - first for first, after in zip(before, _processor_times(), strict=True)]
        if sum(spent[_IDLE]) >= 0.9 * sum(spent):
            return


_IDLE = slice(3, 5)


def _processor_times() -> list[int]:
    """Ticks of all processors; the fourth and fifth are idle and waiting (proc_stat(5))."""
    with open("/proc/stat") as file:
        return [int(word) for word in file.readline().split()[1:9]]


def versions(packages: Sequence[str]) -> str:
    """Of fedtrain and of those packages that are installed."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join([f"fedtrain {fedtrain.__version__}", *found])


def write(name: str, paragraphs: Sequence[str]) -> None:
    """To benchmarks/results/ and to standard output."""
    text = "\n\n".join(paragraphs) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(text)
    print(text)
