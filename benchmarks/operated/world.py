"""A played cluster with our resources, and trainings in it; all in one namespace."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.federations import watching
from benchmarks.operated import audit, stages
from benchmarks.operated.audit import Request
from devcluster import binaries, played

ROOT = Path(__file__).parents[2]
NAMESPACE = "federations"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The cluster, and what a user does with it."""

    cluster: played.Played

    def kubectl(self, *words: str, document: Any = None) -> str:
        command = [binaries.built("kubectl"), f"--kubeconfig={self.cluster.kubeconfig}", *words]
        given = "" if document is None else json.dumps(document)
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise ValueError(f"kubectl {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def create(self, documents: Sequence[Object]) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("create", "-f", "-", document=whole)

    def raw(self, plural: str, name: str = "") -> str:
        """An object, or a list of objects, as the API server sends it."""
        path = f"/apis/fedtrain.dev/v1alpha1/namespaces/{NAMESPACE}/{plural}"
        return self.kubectl("get", "--raw", f"{path}/{name}" if name else path)

    def phases(self) -> list[str]:
        found = json.loads(self.raw("federatedtrainings"))["items"]
        return [(one.get("status") or {}).get("phase", "") for one in found]

    def succeeded(self) -> bool:
        """Asks every two seconds. Raises TooLong if one has failed: it would be in vain."""
        time.sleep(2)
        phases = self.phases()
        if "Failed" in phases:
            raise watching.TooLong("a training failed; that it succeeded")
        return bool(phases) and set(phases) == {"Succeeded"}

    def requests(self) -> list[Request]:
        return audit.requests(self.cluster.audit)


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    with played.control_plane(stages.stages(), audit.POLICY, folder) as cluster:
        made = World(cluster=cluster)
        made.kubectl("create", "-f", str(ROOT / "manifests" / "crds"))
        made.kubectl(
            *("wait", "--for=condition=Established", "--timeout=30s"),
            *("-f", str(ROOT / "manifests" / "crds")),
        )
        made.create([stages.node(), {**_named("Namespace", NAMESPACE)}, *claim("exchange")])
        # Admission puts it on every new node, and nobody here takes it off.
        made.kubectl("taint", "nodes", "played", "node.kubernetes.io/not-ready-")
        yield made


def _named(kind: str, name: str, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **more}}


def claim(name: str, namespace: str = NAMESPACE) -> list[Object]:
    """A claim bound to a volume that nobody mounts."""
    room, modes = {"storage": "1Ti"}, ["ReadWriteMany"]
    of = {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": name}
    common = {"accessModes": modes, "storageClassName": ""}
    return [
        _named("PersistentVolume", name)
        | {"spec": {**common, "capacity": room, "hostPath": {"path": "/mnt"}, "claimRef": of}},
        _named("PersistentVolumeClaim", name, namespace=namespace)
        | {"spec": {**common, "resources": {"requests": room}, "volumeName": name}},
    ]


def a_training(
    name: str, participants: int, *, rounds: int, least: float, most: float, **spec: Any
) -> Object:
    """least, most: seconds for which each participant's pods run."""
    names = [f"hospital-{number:04}" for number in range(participants)]
    variables = [
        {"name": "PLAYED_FOR", "value": f"{least:g}s"},
        {"name": "PLAYED_UPTO", "value": f"{most:g}s"},
    ]
    return {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "rounds": rounds,
            "trainer": {
                "image": "registry.example.com/digits:1",
                "command": ["torchrun", "train.py"],
                "env": variables,
                "resources": {"limits": {"cpu": "1", "memory": "4Gi"}},
            },
            "participants": [{"name": name} for name in names],
            "quorum": {"minimum": max(2, participants // 2), "deadline": "6h"},
            "evaluation": {"by": names[0]},
            "parameters": {"lr": 0.05, "localEpochs": 5},
            "exchange": {"claimName": "exchange"},
            **spec,
        },
    }
