"""`fedtrain watch` beside a real API server, whose objects the tests change by hand."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "01-digits" / "federation.yaml"
pytestmark = pytest.mark.apiserver


@pytest.fixture
def training(kubectl: Any) -> Iterator[dict[str, Any]]:
    document = yaml.safe_load(EXAMPLE.read_text())
    code, answer = kubectl("create", "-f", "-", document=document)
    assert code == 0, answer
    yield document
    kubectl("delete", "federatedtraining", "digits", "--ignore-not-found", "--wait=false")


def _watch(kubectl: Any, *words: str, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(str(ROOT / name) for name in ("operator", "trainer"))
    return subprocess.Popen(
        [sys.executable, "-m", "fedoperator.cli", "watch", *words],
        env=os.environ | {"PYTHONPATH": paths, "KUBECONFIG": str(kubectl.kubeconfig)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _set(kubectl: Any, **status: Any) -> None:
    words = ("patch", "federatedtraining", "digits", "--subresource=status", "--type=merge", "-p")
    code, answer = kubectl(*words, json.dumps({"status": status}))
    assert code == 0, answer


def _until(process: subprocess.Popen[str], text: str) -> str:
    """Its lines up to the one with this text, which must come."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was never said: {said}")


def test_it_follows_a_training_to_its_end(kubectl: Any, training: dict[str, Any]) -> None:
    process = _watch(kubectl, "digits")
    _until(process, "digits: Pending")
    _set(kubectl, phase="Training", round=1)
    _until(process, "Training, round 1/10")
    _set(kubectl, phase="Blocked", reason="ClaimMissing", message="no claim; create it")
    _set(kubectl, phase="Succeeded", message="10 rounds published", metrics={"accuracy": 0.97})
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Succeeded: 10 rounds published  accuracy 0.97" in out
    assert err == "Blocked: ClaimMissing: no claim; create it\n"


def test_a_training_that_failed_is_exit_code_one(kubectl: Any, training: dict[str, Any]) -> None:
    _set(kubectl, phase="Failed", reason="NoSubmit", message="call rnd.submit(...)")
    process = _watch(kubectl, "digits")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == "Failed: NoSubmit: call rnd.submit(...)\n"


def test_one_that_does_not_exist_is_one_sentence(kubectl: Any) -> None:
    process = _watch(kubectl, "nothing", "-n", "kube-system")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("FederatedTraining nothing does not exist in namespace kube-system; ")


def test_until_done_waits_for_one_that_does_not_exist_yet(
    kubectl: Any, request: pytest.FixtureRequest
) -> None:
    process = _watch(kubectl, "digits", "--until-done")
    request.getfixturevalue("training")
    _until(process, "digits: Pending")
    _set(kubectl, phase="Succeeded")
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_one_that_is_deleted_meanwhile_ends_it(kubectl: Any, training: dict[str, Any]) -> None:
    process = _watch(kubectl, "digits")
    _until(process, "digits: Pending")
    kubectl("delete", "federatedtraining", "digits")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == "FederatedTraining digits was deleted in namespace default\n"


def test_without_a_cluster_it_says_so(kubectl: Any, tmp_path: Path) -> None:
    process = _watch(kubectl, "digits", KUBECONFIG=str(tmp_path / "none"))
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "set KUBECONFIG" in err
    assert len(err.splitlines()) == 1
