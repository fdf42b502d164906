"""All benchmarks; writes one page with machine and versions to benchmarks/results/."""

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import fedtrain
from benchmarks import aggregation, rounds

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "kopf", "kubernetes", "pydantic")


def machine() -> str:
    """What the figures hang on."""
    with open("/proc/cpuinfo") as file:
        model = next((x.split(":")[1].strip() for x in file if x.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES)
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; load average at the start {load}\n\n"
        f"fedtrain {fedtrain.__version__}, {versions}"
    )


def main() -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    page = [f"# Measured on {today}", machine()]
    for name, benchmark in (("Aggregation", aggregation), ("Rounds", rounds)):
        print(f"{name} ...", file=sys.stderr, flush=True)
        page += [f"## {name}", benchmark.table(benchmark.measure())]
    text = "\n\n".join(page) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{today}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
