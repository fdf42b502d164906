"""A task by `fedtrain run`, with processes per round or resident ones."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.federations import environments, watching
from benchmarks.federations.tasks import Marks, Measured, Task, measured
from fedoperator.api.training import TrainingSpec

HERE = Path(__file__).parent


def knows(pods: str) -> bool:
    """Whether this version has pods that stay between rounds."""
    return pods == "PerRound" or "pods" in TrainingSpec.model_fields


def training(task: Task, pods: str) -> dict[str, Any]:
    """The resource; a name, and an index in the environment, for every participant."""
    command = ["python", "script.py"] if task.framework == "numpy" else ["torchrun", "script.py"]
    shared = [{"name": k, "value": v} for k, v in task.environment.items()]
    spec: dict[str, Any] = {
        "rounds": task.rounds,
        "trainer": {"image": "unused", "command": command, "env": shared},
        "participants": [
            {
                "name": f"p{part}",
                "trainer": {"env": [*shared, {"name": "BENCH_PART", "value": str(part)}]},
            }
            for part in range(task.participants)
        ],
        "exchange": {"size": "8Gi"},
        "quorum": {"minimum": task.invited},
    }
    if task.invited < task.participants:
        fraction = task.invited / task.participants
        spec["selection"] = {"fraction": fraction, "minimum": task.invited, "seed": 248}
    if task.kind == "digits":
        spec["evaluation"] = {"by": "p0"}
    if pods != "PerRound":
        spec["pods"] = pods
    return {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": "bench"},
        "spec": spec,
    }


def run(task: Task, folder: Path, pods: str) -> Measured:
    """total: from the command to its end."""
    (folder / "script.py").write_text((HERE / "script.py").read_text())
    (folder / "federation.yaml").write_text(json.dumps(training(task, pods)))
    command = [sys.executable, "-m", "fedoperator.cli", "run", "federation.yaml", "--out", "out"]
    jobs = ["--jobs", str(task.invited + 1)]  # all at once, as the peers do; and an evaluation
    environment = environments.clean(folder, task, ours=True)
    with watching.Watch() as watch:
        began = time.monotonic()
        process = watching.start([*command, *jobs, "--quiet"], folder, environment, "fedtrain")
        watching.until(lambda: process.poll() is not None, task.limit, f"fedtrain, {task.name}")
        total = time.monotonic() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    status = yaml.safe_load((folder / "out" / "status.yaml").read_text())
    records = [yaml.safe_load(p.read_text()) for p in (folder / "out" / "rounds").iterdir()]
    return measured(
        f"fedtrain, local, {pods}",
        task,
        Marks.of_records(records),
        total=total,
        peak=watch.peak,
        processor=watch.processor,
        accuracy=status.get("metrics", {}).get("accuracy"),
    )
