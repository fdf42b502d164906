"""How good the digits example gets: the final accuracy of several seeds, by `fedtrain run`.

    python -m benchmarks.convergence             # five seeds, ten rounds each: a quarter of an hour

A seed decides who is invited each round and the order of everybody's images. The reference (CNN,
IID, 3 of 5 per round, 5 local epochs) is .99 after ten rounds; McMahan et al. 2017 is the method.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

EXAMPLE = Path(__file__).parents[1] / "examples" / "01-digits"
LIMIT_SECONDS = 3600
TARGET = 0.975


def measure(seeds: int = 5, rounds: int = 10) -> list[float]:
    """The final global accuracy of each seed, the first seed being 1."""
    return [accuracy(seed, rounds) for seed in range(1, seeds + 1)]


def accuracy(seed: int, rounds: int) -> float:
    training = yaml.safe_load((EXAMPLE / "federation.yaml").read_text())
    training["spec"] |= {"rounds": rounds, "seed": seed}
    training["spec"]["selection"]["seed"] = seed
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-") as name:
        folder = Path(name)
        (folder / "train.py").write_text((EXAMPLE / "train.py").read_text())
        (folder / "federation.yaml").write_text(yaml.safe_dump(training))
        command = [sys.executable, "-m", "fedoperator.cli.main", "run", "federation.yaml"]
        subprocess.run(
            [*command, "--out", "out", "--quiet"], cwd=folder, check=True, timeout=LIMIT_SECONDS
        )
        status = yaml.safe_load((folder / "out" / "status.yaml").read_text())
    print(f"seed {seed}: {status['metrics']['accuracy']:.4f}", file=sys.stderr, flush=True)
    return float(status["metrics"]["accuracy"])


def table(accuracies: list[float]) -> str:
    shown = " | ".join(f"{a:.4f}" for a in accuracies)
    return (
        "| digits, accuracy after the last round | "
        + " | ".join(f"seed {n}" for n in range(1, len(accuracies) + 1))
        + f" | median |\n|{'---|' * (len(accuracies) + 2)}\n"
        + f"| | {shown} | **{statistics.median(accuracies):.4f}** |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    accuracies = measure(given.seeds, given.rounds)
    print(table(accuracies))
    if given.rounds >= 10 and statistics.median(accuracies) < TARGET:
        sys.exit(f"the median is below {TARGET}")
