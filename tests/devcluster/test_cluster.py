"""A pod as fedtrain makes them, on the cluster that `python3 -m devcluster up` made."""

import collections.abc
import json
import subprocess
import typing
import uuid

import pytest

from devcluster import binaries, cluster, images

pytestmark = pytest.mark.cluster

Kubectl = collections.abc.Callable[..., str]

# Writes a file on the volume, and then asks for its own name behind the headless Service.
SCRIPT = """
import os, pathlib, socket, time
file = pathlib.Path("/volume/folder/proof")
file.parent.mkdir()
file.write_text("written")
deadline = time.monotonic() + 30
while True:
    try:
        address = socket.gethostbyname("one.peers")
        break
    except socket.gaierror:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.1)
assert address == socket.gethostbyname(socket.gethostname()), address
print("uid", os.getuid(), "owner", file.stat().st_uid, "address", address)
"""


@pytest.fixture
def kubectl(dev_cluster: None) -> collections.abc.Iterator[Kubectl]:
    """kubectl in a namespace of its own that enforces the restricted Pod Security standard."""
    namespace = f"devcluster-{uuid.uuid4().hex[:8]}"

    def run(*words: str, stdin: typing.Any = None) -> str:
        command = [binaries.built("kubectl"), f"--kubeconfig={cluster.kubeconfig()}", *words]
        text = None if stdin is None else json.dumps(stdin)
        result = subprocess.run(
            [str(word) for word in (*command, f"--namespace={namespace}")],
            capture_output=True,
            text=True,
            timeout=150,
            input=text,
        )
        assert result.returncode == 0, f"kubectl {' '.join(words)}: {result.stderr}"
        return result.stdout

    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": namespace, "labels": label}
    run("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    yield run
    run("delete", "namespace", namespace, "--wait=false")


def a_claim() -> dict[str, typing.Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "work"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def a_headless_service() -> dict[str, typing.Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "peers"},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"peers": "yes"},
        },
    }


def a_restricted_pod(image: str) -> dict[str, typing.Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", "labels": {"peers": "yes"}},
        "spec": {
            "hostname": "one",
            "subdomain": "peers",
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "command": ["python3", "-c", SCRIPT],
                    "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "work", "mountPath": "/volume"}],
                }
            ],
            "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "work"}}],
        },
    }


def test_a_restricted_pod_writes_on_a_new_volume_and_finds_its_peers(kubectl: Kubectl) -> None:
    image = images.load(images.base())
    for document in (a_claim(), a_headless_service(), a_restricted_pod(image)):
        kubectl("create", "-f", "-", stdin=document)
    try:
        kubectl("wait", "pod/one", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    except AssertionError as error:
        evidence = kubectl("describe", "pod/one") + kubectl("logs", "pod/one", "--tail=20")
        raise AssertionError(f"{error}\n{evidence}") from None
    assert kubectl("logs", "pod/one").startswith("uid 65532 owner 65532 address 100.91.")


def test_a_volume_goes_with_its_claim(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=a_claim())
    kubectl("wait", "pvc/work", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s")
    volume = kubectl("get", "pvc/work", "--output=jsonpath={.spec.volumeName}")
    kubectl("delete", "pvc/work")
    kubectl("wait", f"pv/{volume}", "--for=delete", "--timeout=30s")


def test_a_pod_that_may_be_root_is_refused(kubectl: Kubectl) -> None:
    pod = a_restricted_pod("registry.fedtrain.local:5000/fedtrain/anything")
    del pod["spec"]["securityContext"]
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        kubectl("create", "-f", "-", stdin=pod)
