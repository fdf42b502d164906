"""A task by fedtrain on the development cluster: the operator, real pods, one volume."""

import base64
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.federations import environments, ours
from benchmarks.federations.tasks import Marks, Measured, Task, measured
from devcluster import cluster, report, stack

NAMESPACE = "fedtrain-bench"
HERE = Path(__file__).parent


def run(task: Task, pods: str) -> Measured:
    """total: from `kubectl apply` to the end; the images are on the node, the chart is new."""
    cluster.up()
    images = stack.load_images()
    stack.install(images.controller, namespace=NAMESPACE)
    try:
        _pull(images.trainer)
        stack.apply(_code())
        document = ours.training(task, pods)
        document["metadata"]["namespace"] = NAMESPACE
        trainer = document["spec"]["trainer"]
        trainer["image"] = images.trainer
        trainer["command"][-1] = "/code/script.py"
        trainer["volumes"] = [
            {"name": "code", "mountPath": "/code", "configMap": {"name": "bench"}}
        ]
        stack.apply(document)
        found = _ended(document["metadata"]["name"], task)
        records = stack.get("federatedrounds", "-n", NAMESPACE)["items"]
    finally:
        stack.uninstall(namespace=NAMESPACE)
    created = _moment(found["metadata"]["creationTimestamp"])
    return measured(
        f"fedtrain, cluster, {pods}",
        task,
        Marks.of_records(records),
        total=(_moment(found["status"]["finishedAt"]) - created).total_seconds(),
        accuracy=found["status"].get("metrics", {}).get("accuracy"),
    )


def _ended(name: str, task: Task) -> dict[str, Any]:
    until = time.monotonic() + task.limit
    while True:
        found: dict[str, Any] = stack.get("federatedtraining", name, "-n", NAMESPACE)
        phase = found.get("status", {}).get("phase")
        if phase == "Succeeded":
            return found
        if phase == "Failed" or time.monotonic() > until:
            raise report.DevclusterError(f"the benchmark's training does not end: {found}")
        time.sleep(1)


def _pull(image: str) -> None:
    """Have the image on the node: the others' programs lie on the disk when they are measured."""
    secure = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "pull", "image": image, "command": ["true"], "securityContext": secure}
    pod = {"restartPolicy": "Never", "containers": [container]}
    meta = {"name": "pull", "namespace": NAMESPACE}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta}
    stack.apply({**job, "spec": {"template": {"spec": pod}}})
    stack.kubectl(
        *("wait", "job/pull", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=300s"),
        seconds=310,
    )


def _code() -> dict[str, Any]:
    """The script, what it imports, and the images, which fit a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "bench", "namespace": NAMESPACE},
        "data": {name: (HERE / name).read_text() for name in ("script.py", *environments.WORK)},
        "binaryData": {
            "digits.csv.gz": base64.b64encode(environments.digits().read_bytes()).decode()
        },
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
