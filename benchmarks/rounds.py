"""What a round costs that does not train: cold pods, empty training, a tiny model.

    python -m benchmarks.rounds                  # on the development cluster and on this machine

Three participants of one process each; a round is measured from its record's startedAt to its
publishedAt, and the median of the rounds is quoted. Once with a plain Python script on numpy arrays
and once under torchrun with torch, whose import is most of the difference.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from devcluster import cluster, report, stack

NAMESPACE = "fedtrain-bench"
ROUNDS = 5
LIMIT_SECONDS = 600
SCRIPT = """
import {module}
from fedtrain import rounds

model = {model}
for rnd in rounds(model):
    rnd.submit(samples=1)
"""
SCRIPTS = {
    "numpy": SCRIPT.format(module="numpy as np", model='{"w": np.zeros(1000, np.float32)}'),
    "torch": SCRIPT.format(module="torch", model="torch.nn.Linear(10, 10)"),
}
COMMANDS = {"numpy": ["python"], "torch": ["torchrun"]}


def measure() -> list[dict[str, Any]]:
    """Median, fastest and slowest round of each kind, in seconds."""
    return [
        {"where": where, "script": kind, **_spread(run(kind))}
        for where, run in (("cluster", on_the_cluster), ("this machine", on_this_machine))
        for kind in SCRIPTS
    ]


def table(figures: list[dict[str, Any]]) -> str:
    lines = [
        "| empty rounds, 3 participants, cold | script | median s | min | max |",
        "|---|---|---|---|---|",
    ]
    for f in figures:
        row = f"| {f['where']} | {f['script']} | {f['median']:.1f} | {f['min']:.1f}"
        lines.append(f"{row} | {f['max']:.1f} |")
    return "\n".join(lines)


def on_the_cluster(kind: str) -> list[float]:
    """Seconds of each round, by the records; the images are built and the chart installed."""
    cluster.up()
    images = stack.load_images()
    stack.install(images.controller, namespace=NAMESPACE)
    try:
        code = {"name": f"script-{kind}", "namespace": NAMESPACE}
        script = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": code}
        stack.apply({**script, "data": {"train.py": SCRIPTS[kind]}})
        training = _training(kind, images.trainer, "/code/train.py")
        mount = {"mountPath": "/code", "configMap": {"name": code["name"]}}
        training["spec"]["trainer"]["volumes"] = [{"name": "code", **mount}]
        training["metadata"]["namespace"] = NAMESPACE
        stack.apply(training)
        name = training["metadata"]["name"]
        until = time.monotonic() + LIMIT_SECONDS
        while True:
            found = stack.get("federatedtraining", name, "-n", NAMESPACE)
            phase = found.get("status", {}).get("phase")
            if phase == "Succeeded":
                break
            if phase == "Failed" or time.monotonic() > until:
                raise report.DevclusterError(f"the benchmark's training does not end: {found}")
            time.sleep(1)
        return _seconds(stack.get("federatedrounds", "-n", NAMESPACE)["items"])
    finally:
        stack.uninstall(namespace=NAMESPACE)


def on_this_machine(kind: str) -> list[float]:
    """The same by `fedtrain run`."""
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-") as name:
        folder = Path(name)
        (folder / "train.py").write_text(SCRIPTS[kind])
        training = _training(kind, "unused", "train.py")
        (folder / "federation.yaml").write_text(json.dumps(training))
        command = [sys.executable, "-m", "fedoperator.cli.main", "run", "federation.yaml"]
        subprocess.run(
            [*command, "--out", "out", "--quiet", "--jobs", "3"],
            cwd=folder,
            check=True,
            timeout=LIMIT_SECONDS,
            env=dict(os.environ),
        )
        records = sorted((folder / "out" / "rounds").glob("*.yaml"))
        return _seconds([yaml.safe_load(record.read_text()) for record in records])


def _training(kind: str, image: str, script: str) -> dict[str, Any]:
    trainer = {"image": image, "command": [*COMMANDS[kind], script]}
    return {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": f"empty-{kind}"},
        "spec": {
            "rounds": ROUNDS,
            "trainer": trainer,
            "participants": [{"name": name} for name in ("north", "south", "west")],
            "exchange": {"size": "1Gi"},
        },
    }


def _seconds(records: list[dict[str, Any]]) -> list[float]:
    """Of every round but the making of the initial model."""
    return [
        (_moment(r["status"]["publishedAt"]) - _moment(r["status"]["startedAt"])).total_seconds()
        for r in records
        if r["spec"]["round"] > 0
    ]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


if __name__ == "__main__":
    print(table(measure()))
