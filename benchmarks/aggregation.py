"""The aggregator against its peers in memory, and against the disk from files to file.

    python -m benchmarks.aggregation                       # everything; writes benchmarks/results/
    python -m benchmarks.aggregation --only memory         # ours, Flower's, FLARE's, a torch loop
    python -m benchmarks.aggregation --only files --folder /mnt/fast
    python -m benchmarks.aggregation --quick               # K=8 in memory, fewer runs

Absolute times drift between machines and hours; quote ratios taken in one run.
"""

import argparse
import datetime

from benchmarks import fromfiles, inmemory, page

PACKAGES = ("numpy", "torch", "flwr", "nvflare")


def measure(
    only: str | None = None, folder: str | None = None, quick: bool = False
) -> dict[str, str]:
    """Title and table of each part."""
    parts = {}
    if only != "files":
        found = inmemory.measure((8,)) if quick else inmemory.measure()
        parts["In memory"] = inmemory.table(found)
    if only != "memory":
        cases = fromfiles.QUICK if quick else fromfiles.CASES
        measured = [fromfiles.measure(case, folder=folder) for case in cases]
        parts["From files to file"] = fromfiles.table(measured)
    return parts


def table(parts: dict[str, str]) -> str:
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", choices=("memory", "files"), help="one of the two parts")
    parser.add_argument("--folder", default=None, help="where to put the files")
    parser.add_argument("--quick", action="store_true", help="K=8 only, and fewer runs")
    options = parser.parse_args()
    began = page.machine()
    text = table(measure(options.only, options.folder, options.quick))
    today = datetime.datetime.now(datetime.UTC).date()
    name = f"{today}-aggregation{f'-{options.only}' if options.only else ''}.md"
    versions = page.versions(PACKAGES)
    page.write(name, [f"# Aggregation, measured on {today}", f"{began}\n\n{versions}", text])


if __name__ == "__main__":
    main()
