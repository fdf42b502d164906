"""Federations on the development cluster: the operator, real pods, one volume."""

import base64
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.federations import environments, ours
from benchmarks.federations.tasks import Marks, Measured, Task, measured
from devcluster import cluster, report, stack
from fedoperator.rounds import jobs

NAMESPACE = "fedtrain-bench"
HERE = Path(__file__).parent


def run(task: Task, pods: str) -> Measured:
    """total: from `kubectl apply` to the end; the images are on the node, the chart is new."""
    files = {name: (HERE / name).read_bytes() for name in ("script.py", *environments.WORK)}
    files["digits.csv.gz"] = environments.digits().read_bytes()
    document = ours.training(task, pods)
    document["spec"]["trainer"]["command"][-1] = "/code/script.py"
    found, records = finished(document, files, task.limit)
    created = _moment(found["metadata"]["creationTimestamp"])
    return measured(
        f"fedtrain, cluster, {pods}",
        task,
        Marks.of_records(records),
        total=(_moment(found["status"]["finishedAt"]) - created).total_seconds(),
        accuracy=found["status"].get("metrics", {}).get("accuracy"),
    )


def finished(
    document: dict[str, Any], files: Mapping[str, bytes], seconds: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The training as it succeeded, and its records. files: what lies in /code, 1 MB in all.

    Raises DevclusterError if it does not end well within so many seconds.
    """
    cluster.up()
    images = stack.load_images()
    stack.install(images.controller, namespace=NAMESPACE)
    try:
        _pull(images.trainer)
        stack.apply(_code(files))
        document["metadata"]["namespace"] = NAMESPACE
        document["spec"]["trainer"] |= {
            "image": images.trainer,
            "volumes": [{"name": "code", "mountPath": "/code", "configMap": {"name": "bench"}}],
        }
        stack.apply(document)
        found = _ended(document["metadata"]["name"], seconds)
        records = stack.get("federatedrounds", "-n", NAMESPACE)["items"]
    finally:
        stack.uninstall(namespace=NAMESPACE)
    return found, records


def _ended(name: str, seconds: float) -> dict[str, Any]:
    until = time.monotonic() + seconds
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
    secure = {**jobs.NO_ROOT, **jobs.NO_PRIVILEGES, "runAsUser": 65532}
    container = {"name": "pull", "image": image, "command": ["true"], "securityContext": secure}
    pod = {"restartPolicy": "Never", "containers": [container]}
    meta = {"name": "pull", "namespace": NAMESPACE}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta}
    stack.apply({**job, "spec": {"template": {"spec": pod}}})
    stack.kubectl(
        *("wait", "job/pull", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=300s"),
        seconds=310,
    )


def _code(files: Mapping[str, bytes]) -> dict[str, Any]:
    encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "bench", "namespace": NAMESPACE},
        "binaryData": encoded,
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
