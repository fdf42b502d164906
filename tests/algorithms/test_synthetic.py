"""Synthetic(1,1) by the real `fedtrain run`: round by round the bits of the simulation."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.synthetic.__main__ import Case, document
from benchmarks.synthetic.simulation import Simulation
from benchmarks.synthetic.train import measured, users

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(str(ROOT / name) for name in ("operator", "trainer"))
SOME = (3, 11, 20)
ROUNDS = 2


def test_the_data_are_those_of_the_reference() -> None:
    everybody = users(0, 0)
    assert sum(len(user.train[1]) for user in everybody) == 8901
    assert sum(len(user.test[1]) for user in everybody) == 1007


@pytest.mark.parametrize("strategy", [{"name": "FedProx", "mu": 1}, {"name": "SCAFFOLD"}])
def test_a_run_gives_the_simulations_digests(strategy: dict[str, Any], tmp_path: Path) -> None:
    training = document(Case(1, strategy), ROUNDS)
    spec = training["spec"]
    spec["participants"] = [spec["participants"][user] for user in SOME]
    spec["quorum"] = {"minimum": len(SOME)}
    spec["parameters"]["epochs"] = 2
    spec["evaluation"] = {"by": spec["participants"][0]["name"], "every": ROUNDS}
    (tmp_path / "federation.yaml").write_text(yaml.safe_dump(training))
    script = ROOT / "benchmarks" / "synthetic" / "train.py"
    (tmp_path / "train.py").write_text(script.read_text())
    subprocess.run(
        [sys.executable, "-m", "fedoperator.cli", "run", "federation.yaml", "--out", "out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": PATHS},
        check=True,
        timeout=200,
    )
    paths = (tmp_path / "out" / "rounds").iterdir()
    records = {
        r["spec"]["round"]: r["status"] for r in (yaml.safe_load(p.read_text()) for p in paths)
    }
    simulation = Simulation(users(1, 1), SOME, strategy, spec["parameters"])
    for number, _ in enumerate(simulation.rounds(ROUNDS), start=1):
        assert records[number]["globalModel"]["digest"] == simulation.digest()
    expected = measured(simulation.model, users(1, 1))
    assert records[ROUNDS]["metrics"] == pytest.approx(expected, rel=1e-6)
