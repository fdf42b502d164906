"""DiLoCo against the synchronous run, plain averaging and a lone worker, by `fedtrain run`.

    python -m benchmarks.diloco --work DIR    # about 15 minutes of one core; goes on where it was

All begin at one common start (600 synchronous steps from nothing) and take as many steps over the
same text of example 03; the synchronous run has the four workers' batches in one, the lone worker
a quarter of the text. Loss on the held-out text after the last step, as the federation says it.
Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models".
"""

import argparse
import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks import page

EXAMPLE = Path(__file__).parents[1] / "examples" / "03-diloco"
PACKAGES = ("torch", "transformers", "numpy")
LIMIT_SECONDS = 7200
START_STEPS = 600
WORKERS = 4
LENGTH = 64
"""Tokens in a window: half of the example's, for half the time."""

RUNS = ("start", "synchronous", "DiLoCo", "FedAvg", "lone worker")


def measure(work: Path, rounds: int, every: int) -> dict[str, float]:
    """The final loss of each run; what `work` has from before is not done again."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLE / "train.py", work)
    if not (work / "start" / "model.safetensors").exists():
        schedule = ["--every", str(START_STEPS), "--steps", str(START_STEPS)]
        command = [sys.executable, "train.py", *schedule, "--batch", str(4 * WORKERS)]
        command += ["--length", str(LENGTH), "--schedule", "constant_with_warmup"]
        subprocess.run([*command, "--save", "start"], cwd=work, check=True, timeout=LIMIT_SECONDS)
    return {name: loss(work, name, rounds, every) for name in RUNS}


def loss(work: Path, name: str, rounds: int, every: int) -> float:
    kept = work / f"{name}.json"
    if not kept.exists():
        print(f"{name} ...", file=sys.stderr, flush=True)
        (work / f"{name}.yaml").write_text(yaml.safe_dump(federation(name, rounds, every)))
        command = [sys.executable, "-m", "fedoperator.cli.main", "run", f"{name}.yaml"]
        subprocess.run(
            [*command, "--out", f"out-{name}", "--quiet", "--jobs", "1"],
            cwd=work,
            check=True,
            timeout=LIMIT_SECONDS,
        )
        status = yaml.safe_load((work / f"out-{name}" / "status.yaml").read_text())
        kept.write_text(json.dumps(status["metrics"]))
    return float(json.loads(kept.read_text())["loss"])


def federation(name: str, rounds: int, every: int) -> dict[str, Any]:
    """The example's, with the strategy and the participants of this run."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLE / "federation.yaml").read_text())
    spec, steps = document["spec"], rounds * every
    spec["pods"] = "PerRound"  # one worker at a time: the same numbers in less memory
    alone = name not in ("DiLoCo", "FedAvg")
    if alone:  # one participant, whose only round is all the steps
        spec["participants"] = spec["participants"][:1]
    if name in ("start", "synchronous"):
        spec["participants"][0]["trainer"]["args"] = ["--batch", str(4 * WORKERS)]
    if name != "DiLoCo":
        spec["strategy"] = {"name": "FedAvg"}
    if name == "start":  # a step so small that the model stays what it is
        spec["participants"][0]["trainer"]["args"] += ["--lr", "0"]
        steps = every = 1
    command = [
        "python",
        "train.py",
        "--model",
        "start",
        "--length",
        str(LENGTH),
        "--steps",
        str(steps),
    ]
    spec["trainer"]["command"] = [*command, "--every", str(steps if alone else every)]
    spec["rounds"] = 1 if alone else rounds
    spec["evaluation"] = {"by": "worker-0", "every": spec["rounds"]}
    return document


def table(losses: dict[str, float], rounds: int, every: int) -> str:
    exchanges = {"synchronous": rounds * every, "DiLoCo": rounds, "FedAvg": rounds}
    rows = [
        f"| {name} | {value:.4f} | {100 * (value / losses['synchronous'] - 1):+.1f} % | "
        f"{exchanges.get(name, 0)} |"
        for name, value in losses.items()
    ]
    return "\n".join(
        ["| run | held-out loss | against synchronous | exchanges |", "|---|---|---|---|", *rows]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--every", type=int, default=50)
    given = parser.parse_args()
    began, today = page.machine(), datetime.datetime.now(datetime.UTC).date()
    losses = measure(given.work.absolute(), given.rounds, given.every)
    page.write(
        f"{today}-diloco.md",
        [
            f"# DiLoCo, {today}",
            f"`python -m benchmarks.diloco --rounds {given.rounds} --every {given.every}`: "
            f"{WORKERS} workers, {given.rounds * given.every} steps after {START_STEPS} in common.",
            f"{began}\n\n{page.versions(PACKAGES)}",
            table(losses, given.rounds, given.every),
        ],
    )


if __name__ == "__main__":
    main()
