"""All benchmarks; writes one page with machine and versions to benchmarks/results/."""

import datetime
import sys

from benchmarks import aggregation, page, rounds

PACKAGES = ("torch", "numpy", "kopf", "kubernetes", "pydantic", "flwr", "nvflare")


def main() -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    began = page.machine()
    tables = []
    for name, benchmark in (("Aggregation", aggregation), ("Rounds", rounds)):
        print(f"{name} ...", file=sys.stderr, flush=True)
        tables += [f"## {name}", benchmark.table(benchmark.measure())]
    versions = page.versions(PACKAGES)
    page.write(f"{today}.md", [f"# Measured on {today}", f"{began}\n\n{versions}", *tables])


if __name__ == "__main__":
    main()
