"""Synthetic(0,0) and (1,1) against the reference, and what SCAFFOLD and FedNova make of (1,1).

    python -m benchmarks.synthetic                 # in one process, 200 rounds each: half an hour
    python -m benchmarks.synthetic --run 10        # `fedtrain run`, ten rounds each, and compare
    python -m benchmarks.synthetic --cluster 20    # on the cluster, what has a reference
    python -m benchmarks.synthetic --case '(1,1)' --run 200       # only those so called

`--run` and `--cluster` keep 30 participants with `pods: Resident`; the digest of every round is
compared with the simulation's, so that the figures of the one are those of the other.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import page
from benchmarks.federations import oncluster
from benchmarks.synthetic.simulation import Simulation
from benchmarks.synthetic.train import USERS, measured, users

HERE = Path(__file__).parent
LIMIT_SECONDS = 6 * 3600
AT = (10, 50, 100, 200)
POINTS, RELATIVE = 0.006, 0.02
"""How far accuracy and loss may be from the reference."""


@dataclass(frozen=True, eq=False)
class Case:
    """data: α = β. reference: accuracy and loss after the rounds `AT`, where there is one."""

    data: int
    strategy: Mapping[str, Any]
    reference: tuple[tuple[float, float], ...] = ()

    @property
    def label(self) -> str:
        mu = f" μ={self.strategy['mu']:g}" if "mu" in self.strategy else ""
        return f"({self.data},{self.data}) {self.strategy['name']}{mu}"


CASES = (
    Case(0, {"name": "FedAvg"}, ((0.620, 1.25), (0.714, 1.36), (0.748, 1.35), (0.774, 1.33))),
    Case(
        0,
        {"name": "FedProx", "mu": 1},
        ((0.642, 1.07), (0.721, 0.742), (0.756, 0.628), (0.788, 0.533)),
    ),
    Case(1, {"name": "FedAvg"}, ((0.481, 1.51), (0.674, 1.40), (0.736, 1.39), (0.762, 1.365))),
    Case(
        1,
        {"name": "FedProx", "mu": 1},
        ((0.546, 1.25), (0.716, 0.786), (0.771, 0.645), (0.813, 0.550)),
    ),
    Case(1, {"name": "SCAFFOLD"}),
    Case(1, {"name": "FedNova"}),
)
Figures = Mapping[int, Mapping[str, float]]
"""Round → accuracy and loss."""


def document(case: Case, rounds: int) -> dict[str, Any]:
    """The federation's file, for this case."""
    made: dict[str, Any] = yaml.safe_load((HERE / "federation.yaml").read_text())
    made["spec"] |= {"rounds": rounds, "strategy": dict(case.strategy), "pods": "Resident"}
    made["spec"]["trainer"]["args"] = ["--alpha", str(case.data), "--beta", str(case.data)]
    return made


def simulated(case: Case, rounds: int) -> tuple[Figures, list[str]]:
    """Figures after each round, and the digest of each global model."""
    everybody = users(case.data, case.data)
    how = document(case, rounds)["spec"]["parameters"]
    simulation = Simulation(everybody, range(USERS), case.strategy, how)
    figures, digests = {}, []
    for number, model in enumerate(simulation.rounds(rounds), start=1):
        figures[number] = measured(model, everybody)
        digests.append(simulation.digest())
    return figures, digests


def run(case: Case, rounds: int, jobs: int) -> tuple[Figures, list[str], float]:
    """The same by `fedtrain run`, and the seconds that it took."""
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-") as name:
        folder = Path(name)
        (folder / "train.py").write_text((HERE / "train.py").read_text())
        (folder / "federation.yaml").write_text(yaml.safe_dump(document(case, rounds)))
        command = [sys.executable, "-m", "fedoperator.cli", "run", "federation.yaml"]
        began = time.monotonic()
        subprocess.run(
            [*command, "--out", "out", "--jobs", str(jobs), "--quiet"],
            cwd=folder,
            check=True,
            timeout=LIMIT_SECONDS,
        )
        seconds = time.monotonic() - began
        records = [yaml.safe_load(path.read_text()) for path in (folder / "out/rounds").iterdir()]
    return *told(records, rounds), seconds


def on_cluster(case: Case, rounds: int) -> tuple[Figures, list[str], float]:
    """The same on the cluster, where nothing of it lives on without a claim."""
    asked = document(case, rounds)
    for participant in asked["spec"]["participants"]:
        del participant["scratch"]
    asked["spec"]["trainer"]["command"][-1] = "/code/train.py"
    began = time.monotonic()
    files = {"train.py": (HERE / "train.py").read_bytes()}
    _, records = oncluster.finished(asked, files, LIMIT_SECONDS)
    return *told(records, rounds), time.monotonic() - began


def told(records: Sequence[Mapping[str, Any]], rounds: int) -> tuple[Figures, list[str]]:
    """Of each round that has them the figures, and the digest of each global model."""
    by_round = {record["spec"]["round"]: record["status"] for record in records}
    figures = {n: s["metrics"] for n, s in by_round.items() if s.get("metrics")}
    return figures, [by_round[n]["globalModel"]["digest"] for n in range(1, rounds + 1)]


def row(case: Case, figures: Figures) -> str:
    cells = []
    for number, wanted in zip(AT, case.reference or [None] * len(AT), strict=True):
        if number not in figures:
            cells.append("")
            continue
        accuracy, loss = figures[number]["accuracy"], figures[number]["loss"]
        shown = f"{accuracy:.3f} / {loss:.3f}"
        if wanted is not None:
            ok = "" if near(figures[number], wanted) else " **no**"
            shown += f" ({wanted[0]:.3f} / {wanted[1]:g}){ok}"
        cells.append(shown)
    return f"| {case.label} | " + " | ".join(cells) + " |"


def near(figures: Mapping[str, float], wanted: tuple[float, float]) -> bool:
    accuracy, loss = wanted
    return (
        abs(figures["accuracy"] - accuracy) <= POINTS
        and abs(figures["loss"] - loss) <= RELATIVE * loss
    )


def table(of: Mapping[Case, Figures]) -> str:
    head = "| data, strategy | " + " | ".join(f"round {number}" for number in AT) + " |"
    return "\n".join([head, "|---" * (len(AT) + 1) + "|", *(row(*item) for item in of.items())])


def missed(of: Mapping[Case, Figures]) -> list[str]:
    """What is further from the reference than it may be."""
    return [
        f"{case.label}, round {number}"
        for case, figures in of.items()
        for number, wanted in zip(AT, case.reference, strict=False)
        if number in figures and not near(figures[number], wanted)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="of the simulation")
    parser.add_argument("--run", type=int, metavar="ROUNDS", help="by `fedtrain run`")
    parser.add_argument("--cluster", type=int, metavar="ROUNDS", help="on the cluster")
    parser.add_argument("--case", metavar="TEXT", default="", help="only what has this in its name")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    machine, odd, compared, figures = page.machine(), [], [], {}
    rounds = given.run or given.cluster or given.rounds
    for case in CASES:
        if given.case not in case.label or (given.cluster and not case.reference):
            continue
        figures[case], digests = simulated(case, rounds)
        if given.run or given.cluster:
            figures[case], ran, seconds = (
                run(case, rounds, given.jobs) if given.run else on_cluster(case, rounds)
            )
            same = sum(one == other for one, other in zip(ran, digests, strict=True))
            compared.append(
                f"{case.label}: {same} of {rounds} digests are the simulation's, "
                f"{seconds / rounds:.1f} s a round"
            )
            odd += [] if same == rounds else [f"{case.label}: digests"]
        print(row(case, figures[case]), *compared[-1:], sep="\n", file=sys.stderr, flush=True)
    today = datetime.datetime.now(datetime.UTC).date()
    how = "run" if given.run else "cluster" if given.cluster else ""
    command = "python -m benchmarks.synthetic" + (f" --{how} {rounds}" if how else "")
    command += f" --case '{given.case}'" if given.case else ""
    name = f"{today}-synthetic{how and '-' + how}.md"
    page.write(
        name,
        [
            f"# Synthetic(0,0) and (1,1), measured on {today}",
            f"`{command}`\n\n{machine}\n\n{page.versions(['numpy'])}",
            "Accuracy / loss after a round; in brackets what is to be met.",
            table(figures),
            *compared,
        ],
    )
    if odd := [*odd, *missed(figures)]:
        sys.exit("not met: " + "; ".join(odd))


if __name__ == "__main__":
    main()
