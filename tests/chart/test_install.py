"""The chart on a real cluster that enforces the restricted Pod Security standard."""

import os
import pathlib
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.chart.conftest import CHART, ROOT, Document, only

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

Kubectl = Callable[..., str]
DEFINITIONS = ("federatedtrainings.fedtrain.dev", "federatedrounds.fedtrain.dev")


@pytest.fixture(scope="module")
def kubeconfig() -> pathlib.Path:
    from devcluster import cluster

    if not cluster.is_up():
        pytest.fail("no cluster is up: run `python3 -m devcluster up`, or deselect -m cluster")
    return cluster.kubeconfig()


@pytest.fixture(scope="module")
def image(kubeconfig: pathlib.Path) -> str:
    """The controller of this working tree, by the name that pods pull."""
    from devcluster import images

    tag = "fedtrain/controller:chart-test"
    images.build(images.Build(tag=tag, context=ROOT, target="controller"))
    return images.load(tag)


@pytest.fixture
def kubectl(kubeconfig: pathlib.Path) -> Iterator[Kubectl]:
    """kubectl in a namespace of its own."""
    from devcluster import binaries

    namespace = f"chart-{uuid.uuid4().hex[:8]}"

    def run(*words: str) -> str:
        program = binaries.built("kubectl")
        result = subprocess.run(
            [program, f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", *words],
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert result.returncode == 0, f"kubectl {' '.join(words)}: {result.stderr}"
        return result.stdout

    run("create", "namespace", namespace)
    run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    yield run
    run("delete", "namespace", namespace, "--wait=false")
