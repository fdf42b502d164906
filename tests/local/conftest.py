"""A small federation in a folder, run by the real `fedtrain run` in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedoperator.local import processes

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(str(ROOT / name) for name in ("operator", "trainer"))

SCRIPT = '''
"""Linear regression by gradient descent on this participant's own points; no torch."""

import argparse
import os
import signal
import sys
import time

import numpy as np
from fedtrain import rounds

parser = argparse.ArgumentParser()
parser.add_argument("--part", type=int, default=0)
parser.add_argument("--sleep", type=float, default=0.0)
parser.add_argument("--raise-in", type=int, nargs="*", default=[])
parser.add_argument("--forget", action="store_true")
parser.add_argument("--stubborn", action="store_true")
args = parser.parse_args()
if args.stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

rng = np.random.default_rng(args.part)
x = rng.normal(size=(20 + 10 * args.part, 3))
y = x @ np.array([1.0, -2.0, 3.0]) + 0.5 + 0.1 * args.part
model = {"w": np.zeros(3, np.float32), "b": np.zeros(1, np.float32)}


def evaluate(model):
    error = x @ model["w"] + model["b"] - y
    return {"loss": float((error**2).mean()), "samples": len(y)}


for rnd in rounds(model, evaluate=evaluate):
    print("says", os.environ.get("SAYS"), flush=True)
    time.sleep(args.sleep)
    if rnd.number in args.raise_in:
        raise ValueError(f"no luck in round {rnd.number}")
    lr = rnd.parameters["lr"]
    for _ in range(5):
        error = x @ model["w"] + model["b"] - y
        model["w"] -= (2 * lr * x.T @ error / len(y)).astype(np.float32)
        model["b"] -= np.float32(2 * lr * error.mean())
    if not args.forget:
        rnd.submit(samples=len(y), metrics={"loss": float((error**2).mean())})
'''


class Federation:
    """FILE and DIR of `fedtrain run`, beside the script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "federation.yaml"
        self.out = folder / "out"
        self.started: list[subprocess.Popen[str]] = []
        (folder / "train.py").write_text(SCRIPT)

    def of(self, *participants: dict[str, Any], rounds: int = 2, **spec: Any) -> "Federation":
        """Write FILE. participants: each its args, by name, as in {"a": ["--part", "0"]}."""
        named = {name: args for one in participants for name, args in one.items()}
        document = {
            "apiVersion": "fedtrain.dev/v1alpha1",
            "kind": "FederatedTraining",
            "metadata": {"name": "linear"},
            "spec": {
                "rounds": rounds,
                "trainer": {"image": "linear", "command": ["python", "train.py"]},
                "participants": [
                    {"name": name, "trainer": {"args": args}} for name, args in named.items()
                ],
                "exchange": {"size": "1Gi"},
                "parameters": {"lr": 0.05},
                **spec,
            },
        }
        self.file.write_text(yaml.safe_dump(document))
        return self

    def change(self, **spec: Any) -> None:
        document = yaml.safe_load(self.file.read_text())
        document["spec"].update(spec)
        self.file.write_text(yaml.safe_dump(document))

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fedoperator.cli", "run", str(self.file)]
        process = subprocess.Popen(
            [*command, "--out", str(self.out), *options],
            env=os.environ | {"PYTHONPATH": PATHS} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*options, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def kill_after(self, condition: Callable[[], bool], number: int = signal.SIGKILL) -> int:
        """Start it, send the signal once the condition holds; its exit code."""
        process = self.start()
        self.wait_for(lambda: condition() or process.poll() is not None)
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.02)

    @property
    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load((self.out / "status.yaml").read_text())
        return document

    @property
    def records(self) -> list[dict[str, Any]]:
        paths = sorted((self.out / "rounds").glob("*.yaml"))
        return [yaml.safe_load(path.read_text()) for path in paths]

    @property
    def round(self) -> int:
        return int(self.status["round"]) if (self.out / "status.yaml").exists() else 0

    @property
    def model(self) -> Path:
        path: str = self.status["globalModel"]["path"]
        return self.out / "exchange" / path

    @property
    def digest(self) -> str:
        return str(self.status["globalModel"]["digest"])

    @property
    def processes(self) -> list[int]:
        return processes.marked(str(self.out / "children"))

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        processes.kill(str(self.out / "children"))


def three(*args: str) -> dict[str, list[str]]:
    """Three participants, each with its own part of the points."""
    return {name: ["--part", str(part), *args] for part, name in enumerate("abc")}


@pytest.fixture(scope="session")
def a_federation() -> type[Federation]:
    return Federation


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Ten rounds, all files kept, evaluated by one: run once for all who only look at it."""
    made = Federation(tmp_path_factory.mktemp("undisturbed"))
    made.of(three(), rounds=10, keep={"last": 100, "updates": 100}, evaluation={"by": "a"})
    result = made.run()
    (made.folder / "said").write_text(result.stdout)
    assert result.returncode == 0, result.stderr
    yield made
    made.close()


@pytest.fixture(name="three", scope="session")
def _three() -> Callable[..., dict[str, list[str]]]:
    return three
