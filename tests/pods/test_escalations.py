"""No FederatedTraining gets more than a pod may have: refused, or harmless as rendered.

In a namespace in which Pod Security enforces nothing.
"""

from typing import Any

import pytest

from fedoperator import errors
from fedoperator.api import API_VERSION
from fedtrain import contract
from tests.pods.escalations import attempts
from tests.pods.rendering import Object, job_of, pod_of, training_of, workloads
from tests.pods.restricted import offences

ATTEMPTS = attempts()
OURS = {"exchange", "tmp", "data", "base", "scratch", "shm", "model"}
SOURCES = {"persistentVolumeClaim", "emptyDir", "configMap", "secret"}
POD_FIELDS = {
    "restartPolicy", "automountServiceAccountToken", "enableServiceLinks", "subdomain",
    "securityContext", "containers", "volumes", "nodeSelector", "tolerations", "imagePullSecrets",
    "runtimeClassName", "priorityClassName", "schedulerName", "terminationGracePeriodSeconds",
    "topologySpreadConstraints", "affinity",
}  # fmt: skip


def test_there_are_more_than_sixty() -> None:
    assert len(ATTEMPTS) >= 60


def harmless(job: Object) -> None:
    """Fails with what a pod may not have."""
    pod = pod_of(job)
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert list(offences(pod)) == []
    assert set(spec) <= POD_FIELDS
    assert job["metadata"]["namespace"] == "ours"
    assert spec["automountServiceAccountToken"] is False
    assert set(pod["metadata"]) == {"labels"}
    assert all(key.split("/")[0] in ("fedtrain.dev", "app.kubernetes.io") for key in _labels(pod))
    for volume in spec["volumes"]:
        assert set(volume) - {"name"} <= SOURCES
        assert volume["name"] in OURS or volume["name"].startswith("user-")
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        assert claim != "digits-exchange" or volume["name"] == "exchange"
    _mounts(container["volumeMounts"])
    _environment(container)
    launcher = ["python", "-m", "fedtrain.launch", "--"]
    aggregator = ["python", "-m", "fedtrain.aggregation"]
    assert container["command"] == aggregator or container["command"][:4] == launcher


def _labels(pod: Object) -> Object:
    labels: Object = pod["metadata"]["labels"]
    return labels


def _mounts(mounts: list[Object]) -> None:
    paths = [mount["mountPath"].rstrip("/") for mount in mounts]
    assert len(set(paths)) == len(paths)
    for mount, path in zip(mounts, paths, strict=True):
        assert ".." not in path.split("/")
        assert ".." not in mount.get("subPath", "").split("/")
        reserved = (contract.MOUNT, "/tmp", "/scratch")
        below = any(f"{path}/".startswith(f"{place}/") for place in reserved)
        assert path.startswith("/"), "not over everything, and nowhere relative"
        assert not below or mount["name"] in OURS - {"data", "shm"}
        assert mount["name"] != "data" or mount["readOnly"] is True


def _environment(container: Object) -> None:
    names = [variable["name"] for variable in container["env"]]
    assert len(set(names)) == len(names)
    task = next(v for v in container["env"] if v["name"] == contract.TASK_ENV)
    assert "$(" not in task["value"].replace("$$", "")
    for variable in container["env"]:
        assert "\n" not in variable["name"]
        source = variable.get("valueFrom", {})
        assert set(source) <= {"secretKeyRef", "configMapKeyRef", "fieldRef"}
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"].startswith("metadata.")


@pytest.fixture(scope="module")
def document() -> Any:
    def of(spec: Object) -> Object:
        base = {
            "rounds": 2,
            "trainer": {"image": "digits:1", "command": ["torchrun", "train.py"]},
            "participants": [{"name": "north"}, {"name": "south"}],
            "exchange": {"size": "1Gi"},
        }
        about = {"apiVersion": API_VERSION, "kind": "FederatedTraining"}
        return {**about, "metadata": {"name": "digits"}, "spec": base | spec}

    return of


def test_the_least_training_is_harmless(document) -> None:
    for made in workloads(training_of(document({}))):
        harmless(job_of(made))


@pytest.mark.apiserver
@pytest.mark.parametrize("strict", ["Strict", "Ignore"])
async def test_no_attempt_makes_an_offending_pod(strict, document, transport) -> None:
    """Ignore: what the schema does not know is dropped, as for a client that does not ask."""
    path = f"/apis/{API_VERSION}/namespaces/default/federatedtrainings"
    refused, wrong = [], []
    for name, spec in ATTEMPTS.items():
        query = {"dryRun": "All", "fieldValidation": strict}
        try:
            stored = await transport.request("POST", path, document(spec), query)
        except errors.Refused:
            refused.append(name)
            continue
        for made in workloads(training_of(stored)):
            try:
                harmless(job_of(made))
            except AssertionError as error:
                wrong.append(f"{name}, {made.identity.role}: {error}")
    assert wrong == []
    assert len(refused) > (60 if strict == "Strict" else 30), refused
