"""The chart on API servers: the definitions on one of its own, the operator on a real cluster."""

import json
import pathlib
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.chart import settings
from tests.chart.conftest import CHART, ROOT, Document

DEFINITIONS = {"federatedtrainings.fedtrain.dev", "federatedrounds.fedtrain.dev"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class Cluster:
    """helm and kubectl for one namespace of a cluster."""

    def __init__(self, helm: Callable[..., str], kubeconfig: pathlib.Path, namespace: str) -> None:
        from devcluster import binaries

        self._helm = helm
        self._kubectl = binaries.built("kubectl")
        self._where = [f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"]
        self.namespace = namespace

    def helm(self, *words: str | pathlib.Path) -> str:
        return self._helm(*words, *self._where)

    def kubectl(self, *words: str, document: Document | None = None) -> str:
        result = subprocess.run(
            [self._kubectl, *self._where, *words],
            capture_output=True,
            text=True,
            timeout=150,
            input="" if document is None else json.dumps(document),
        )
        assert result.returncode == 0, f"kubectl {' '.join(words)}: {result.stderr}"
        return result.stdout

    def get(self, path: str) -> str:
        """From the operator's Service, by way of the API server."""
        service = f"/api/v1/namespaces/{self.namespace}/services/fedtrain:metrics/proxy"
        return self.kubectl("get", "--raw", f"{service}/{path}")


# What helm leaves and takes: on an API server of our own, because definitions are a cluster's only
# ones, and with them go everybody's trainings.


@pytest.fixture
def bare(helm: Callable[..., str]) -> Iterator[Cluster]:
    """An API server with nothing in it, and nobody who would start a pod."""
    from devcluster import apiserver

    with apiserver.api_server() as kubeconfig:
        yield Cluster(helm, kubeconfig, "fedtrain-system")


def definitions(cluster: Cluster) -> set[str]:
    names = cluster.kubectl("get", "crds", "--output=jsonpath={.items[*].metadata.name}")
    return set(names.split()) & DEFINITIONS


@pytest.mark.apiserver
def test_definitions_outlive_the_release_and_the_next_one_takes_them_over(bare):
    bare.helm("install", "fedtrain", CHART, "--create-namespace")
    assert definitions(bare) == DEFINITIONS
    bare.helm("uninstall", "fedtrain")
    assert definitions(bare) == DEFINITIONS
    bare.helm("install", "fedtrain", CHART)
    bare.helm("upgrade", "fedtrain", CHART, "--set=crds.keep=false")
    bare.helm("uninstall", "fedtrain")
    # Helm's own --wait once waited for 240 s for what was gone: its watch had missed the end.
    gone = (f"crd/{name}" for name in sorted(DEFINITIONS))
    bare.kubectl("wait", "--for=delete", "--timeout=60s", *gone)
    assert definitions(bare) == set()


@pytest.mark.apiserver
def test_the_plain_manifest_is_accepted_as_it_is(bare):
    install = str(ROOT / "manifests" / "install.yaml")
    bare.kubectl("apply", "--server-side", "--validate=strict", "--filename", install)
    assert definitions(bare) == DEFINITIONS


@pytest.mark.apiserver
def test_an_api_server_accepts_everything_that_can_be_switched_on(bare, tmp_path):
    """And knows every field, which helm does not ask. Monitors and rules are of kinds of others."""
    here = {
        "watch__namespace": bare.namespace,
        "metrics__serviceMonitor__enabled": False,
        "metrics__prometheusRule__enabled": False,
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(settings.put_all(settings.EVERYTHING, **here)))
    text = bare.helm("template", "fedtrain", CHART, "--values", file)
    documents = [d for d in yaml.load_all(text, yaml.CSafeLoader) if d]
    assert {"PodDisruptionBudget", "NetworkPolicy", "Pod"} < {d["kind"] for d in documents}
    bare.kubectl("create", "namespace", bare.namespace)
    bare.kubectl("create", "serviceaccount", "default")  # No controller is there to make it.
    everything = {"apiVersion": "v1", "kind": "List", "items": documents}
    words = ("--server-side", "--validate=strict", "--dry-run=server", "--filename=-")
    bare.kubectl("apply", *words, document=everything)


# The real thing.


@pytest.fixture
def real(helm: Callable[..., str], kubeconfig: pathlib.Path) -> Iterator[Cluster]:
    """A namespace of its own that enforces the restricted standard, and our definitions."""
    cluster = Cluster(helm, kubeconfig, f"chart-{uuid.uuid4().hex[:8]}")
    metadata = {"name": cluster.namespace, "labels": RESTRICTED}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    cluster.kubectl("create", "--filename=-", document=namespace)
    crds = str(ROOT / "manifests" / "crds")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", crds)
    yield cluster
    cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false")


def a_training() -> Document:
    """One whose participant never starts: the operator's own part can be watched."""
    return {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": "digits"},
        "spec": {
            "rounds": 1,
            "trainer": {"image": "nowhere.invalid/never:1", "command": ["torchrun", "train.py"]},
            "participants": [{"name": "north"}],
            "quorum": {"minimum": 1},
            "exchange": {"size": "1Mi"},
        },
    }


@pytest.mark.cluster
def test_an_installed_operator_is_ready_prepares_a_training_and_is_refused_nothing(real, image):
    repository, _, tag = image.rpartition(":")
    values = [f"image.repository={repository}", f"image.tag={tag}", "crds.enabled=false"]
    words = [f"--set={value}" for value in values]
    try:
        real.helm("install", "fedtrain", CHART, *words, "--wait", "--timeout=120s")
    except Exception as error:
        error.add_note(real.kubectl("describe", "pods"))
        error.add_note(real.kubectl("logs", "deploy/fedtrain", "--tail=50"))
        raise
    real.kubectl("wait", "deploy/fedtrain", "--for=condition=Available", "--timeout=5s")
    assert real.get("readyz") == "ok\n"
    assert real.get("healthz") == "ok\n"

    real.kubectl("create", "--filename=-", document=a_training())
    job = "job/digits-prepare-0-1"
    real.kubectl("wait", "--for=create", job, "--timeout=30s")
    real.kubectl("wait", "--for=condition=Complete", job, "--timeout=90s")
    real.kubectl("wait", "--for=create", "job/digits-init-0-north-1", "--timeout=30s")
    training = yaml.safe_load(real.kubectl("get", "fedt/digits", "--output=yaml"))
    assert training["status"]["phase"] in ("Initialising", "Blocked")

    metrics = real.get("metrics")
    assert "\nfedtrain_operator_leader 1.0\n" in metrics
    assert f'fedtrain_training_phase{{namespace="{real.namespace}",phase="' in metrics
    refused = [line for line in metrics.splitlines() if 'code="403"' in line]
    assert not refused, "a verb is missing from the role"

    began = time.monotonic()
    real.helm("uninstall", "fedtrain", "--wait")
    assert time.monotonic() - began < 25, "it waits for SIGKILL"
    assert real.kubectl("get", "fedt", "--output=name") == (
        "federatedtraining.fedtrain.dev/digits\n"
    )
    real.kubectl("delete", "fedt/digits", "--wait=false")
