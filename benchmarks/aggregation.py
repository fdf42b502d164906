"""The aggregator against its peers in memory, and against the disk from files to file.

    python -m benchmarks.aggregation                       # everything; writes benchmarks/results/
    python -m benchmarks.aggregation --only memory         # ours, Flower's, FLARE's, a torch loop
    python -m benchmarks.aggregation --only files --folder /mnt/fast

Absolute times drift between machines and hours; quote ratios taken in one run.
"""

import argparse
import datetime

from benchmarks import fromfiles, inmemory, page

PACKAGES = ("numpy", "torch", "flwr", "nvflare")


def measure(only: str | None = None, folder: str | None = None) -> dict[str, str]:
    """Title and table of each part."""
    parts = {}
    if only != "files":
        parts["In memory"] = inmemory.table(inmemory.measure())
    if only != "memory":
        measured = [fromfiles.measure(case, folder=folder) for case in fromfiles.CASES]
        parts["From files to file"] = fromfiles.table(measured)
    return parts


def table(parts: dict[str, str]) -> str:
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", choices=("memory", "files"), help="one of the two parts")
    parser.add_argument("--folder", default=None, help="where to put the files")
    options = parser.parse_args()
    began = page.machine()
    text = table(measure(options.only, options.folder))
    today = datetime.datetime.now(datetime.UTC).date()
    name = f"{today}-aggregation{f'-{options.only}' if options.only else ''}.md"
    versions = page.versions(PACKAGES)
    page.write(name, [f"# Aggregation, measured on {today}", f"{began}\n\n{versions}", text])


if __name__ == "__main__":
    main()
