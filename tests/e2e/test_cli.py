"""The commands beside a real cluster: logs from kubelets, a model through a pod."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from federation import NAMESPACE, a_federation, reaches, wait_until

from devcluster import cluster, stack

pytestmark = pytest.mark.cluster


def fedtrain(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedoperator.cli", *map(str, words), "-n", NAMESPACE]
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig())}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def status(installed: stack.Images, tmp_path_factory: pytest.TempPathFactory) -> dict:
    file = tmp_path_factory.mktemp("cli") / "federation.yaml"
    file.write_text(json.dumps(a_federation("seen", installed.trainer, rounds=2)))
    assert fedtrain("apply", file).returncode == 0
    return reaches("seen", "Succeeded", seconds=300)


def test_logs_are_those_of_the_newest_round_and_of_whom_is_asked_for(status: dict) -> None:
    done = fedtrain("logs", "seen", "--role", "aggregate")
    assert done.returncode == 0, done.stderr
    assert "folded 3 updates with FedAvg" in done.stdout
    one = fedtrain("logs", "seen", "--round", 1, "--participant", "north", "--role", "train", "-f")
    assert one.returncode == 0, one.stderr
    none = fedtrain("logs", "seen", "--round", 9)
    assert none.returncode == 1
    assert none.stderr.startswith("there are no logs of round 9; there are logs of rounds: ")


def test_a_model_is_downloaded_through_a_pod_that_is_gone_afterwards(
    status: dict, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    done = fedtrain("models", "download", "seen", out)
    assert done.returncode == 0, done.stderr
    assert status["globalModel"]["digest"] in done.stdout
    assert {path.name for path in out.iterdir()} >= {"model.safetensors", "manifest.json"}
    verified = subprocess.run(
        [sys.executable, "-m", "fedoperator.cli", "models", "verify", out],
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stderr
    label = "app.kubernetes.io/managed-by=fedtrain-cli"

    def gone() -> bool:
        return not stack.get("pods", "-n", NAMESPACE, "-l", label)["items"]

    wait_until("the pod is gone", gone, seconds=60)


def test_what_a_pod_may_not_do_here_it_does_not_ask_for(status: dict, tmp_path: Path) -> None:
    """The namespace enforces *restricted*, and would have refused the pod."""
    levels = stack.get("namespace", NAMESPACE)["metadata"]["labels"]
    assert levels["pod-security.kubernetes.io/enforce"] == "restricted"
    refused = fedtrain("models", "download", "seen", tmp_path / "m", "--image", "No/Such:Image")
    assert refused.returncode == 1
    assert "did not start: InvalidImageName" in refused.stderr
