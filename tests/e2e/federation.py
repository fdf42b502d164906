"""A federation on the real cluster, in words: builders, scripts, bounded waits."""

import time
from collections.abc import Callable
from typing import Any

from devcluster import binaries, cluster, shell, stack

NAMESPACE = "fedtrain-e2e"

SCRIPT = """
import os, sys, time
import numpy as np
from fedtrain import rounds

size, seconds = int(os.environ.get("SIZE", "1000")), float(os.environ.get("SECONDS", "0"))
model = {"w": np.zeros(size, np.float32)}


def evaluate(model):
    return {"mean": float(model["w"].mean()), "samples": 10}


for rnd in rounds(model, evaluate=evaluate):
    time.sleep(seconds)
    generator = np.random.default_rng(rnd.seed)
    model["w"] += generator.standard_normal(size, dtype=np.float32)
    TROUBLE
    rnd.submit(samples=10 + len(rnd.participant), metrics={"loss": 1.0 / rnd.number})
"""
"""A model of numpy arrays: its pods start in a second, because nothing imports torch."""


def a_script(trouble: str = "pass") -> str:
    """The script, with a line of trouble before it submits."""
    return SCRIPT.replace("TROUBLE", trouble)


def publish_script(name: str, text: str) -> None:
    """As a ConfigMap, which the trainer mounts."""
    stack.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "data": {"train.py": text},
        }
    )


def a_federation(name: str, image: str, *, script: str = "plain", **spec: Any) -> dict[str, Any]:
    """Three participants and three rounds of `script`; keyword arguments replace spec fields."""
    trainer = {
        "image": image,
        "command": ["python", "/code/train.py"],
        "volumes": [{"name": "code", "mountPath": "/code", "configMap": {"name": script}}],
    }
    defaults = {
        "rounds": 3,
        "quorum": {"minimum": 2},
        "trainer": trainer,
        "participants": [{"name": n} for n in ("north", "south", "west")],
        "exchange": {"size": "1Gi"},
        "keep": {"last": 100, "updates": 100},
    }
    return {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**defaults, **spec},
    }


def status_of(name: str) -> dict[str, Any]:
    return stack.get("federatedtraining", name, "-n", NAMESPACE).get("status", {})


def record_of(name: str, number: int) -> dict[str, Any]:
    return stack.get("federatedround", f"{name}-{number:05d}", "-n", NAMESPACE)


def wait_until(what: str, holds: Callable[[], Any], *, seconds: float = 240) -> Any:
    """The first true value of `holds`; an AssertionError after `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := holds():
            return value
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def reaches(name: str, phase: str, *, seconds: float = 240) -> dict[str, Any]:
    """The status once the training is in this phase; fails early if it ends otherwise."""

    def there() -> dict[str, Any] | None:
        status = status_of(name)
        if status.get("phase") == phase:
            return status
        assert status.get("phase") not in ("Succeeded", "Failed"), status
        return None

    return wait_until(f"{name} {phase}; now {status_of(name)}", there, seconds=seconds)


def pods(name: str, *labels: str) -> list[dict[str, Any]]:
    selector = ",".join((f"fedtrain.dev/training={name}", *labels))
    return stack.get("pods", "-n", NAMESPACE, "-l", selector)["items"]


def running_pod(name: str, *labels: str, seconds: float = 120) -> str:
    """The name of a pod with these labels whose container runs."""

    def found() -> str | None:
        for pod in pods(name, *labels):
            statuses = pod["status"].get("containerStatuses", [])
            if statuses and "running" in statuses[0]["state"]:
                return pod["metadata"]["name"]
        return None

    return wait_until(f"a running pod of {name} with {labels}", found, seconds=seconds)


def kill(pod: str) -> None:
    """At once, as a crash would."""
    stack.kubectl("delete", "pod", pod, "-n", NAMESPACE, "--grace-period=0", "--force")


def helm(verb: str, *words: str) -> str:
    """A verb of helm for the release in that namespace."""
    where = (f"--kubeconfig={cluster.kubeconfig()}", f"--namespace={NAMESPACE}")
    return shell.run(binaries.built("helm"), verb, "fedtrain", *words, *where, seconds=240)
