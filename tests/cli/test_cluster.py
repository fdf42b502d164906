"""The commands beside a real API server, whose objects the tests change as an operator would."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedoperator.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "01-digits" / "federation.yaml"
pytestmark = pytest.mark.apiserver

Said = pytest.CaptureFixture[str]


class Place:
    """A namespace of one's own, a file, and the operator's part."""

    def __init__(self, kubectl: Any, folder: Path) -> None:
        self.namespace = f"cli-{uuid.uuid4().hex[:8]}"
        self.kubectl = kubectl
        self.file = folder / "federation.yaml"
        self.spec: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())["spec"]
        self.must("create", "namespace", self.namespace)
        self.write()

    def write(self, **spec: Any) -> None:
        self.spec |= spec
        document = yaml.safe_load(EXAMPLE.read_text()) | {"spec": self.spec}
        self.file.write_text(yaml.safe_dump(document))

    def must(self, *words: str, document: Any = None) -> str:
        code, answer = self.kubectl(*words, document=document)
        assert code == 0, answer
        return answer.strip()

    def status(self, **status: Any) -> None:
        self._patch("federatedtraining", "digits", status)

    def round(self, number: int, owner: str = "", **status: Any) -> None:
        """owner: uid of its training; the one that is there if left out."""
        name = f"digits-{number:05d}"
        words = ("get", "fedt", "digits", "-n", self.namespace, "-o", "jsonpath={.metadata.uid}")
        training = {"apiVersion": "fedtrain.dev/v1alpha1", "kind": "FederatedTraining"}
        training |= {"name": "digits", "uid": owner or self.must(*words)}
        document = {
            "apiVersion": "fedtrain.dev/v1alpha1",
            "kind": "FederatedRound",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {"fedtrain.dev/training": "digits"},
                "ownerReferences": [training],
            },
            "spec": {"training": "digits", "round": number, "invited": ["hospital-a"]},
        }
        self.must("create", "-f", "-", document=document)
        model = {"round": number, "path": f"x/global/{number}/1/m", "digest": f"sha256:{number}"}
        self._patch("federatedround", name, {"phase": "Published", "globalModel": model, **status})

    def _patch(self, kind: str, name: str, status: dict[str, Any]) -> None:
        words = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        self.must("patch", kind, name, "-n", self.namespace, *words)

    def fedtrain(self, *words: str) -> int:
        return main.main([*words, "-n", self.namespace])


@pytest.fixture
def place(kubectl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("KUBECONFIG", str(kubectl.kubeconfig))
    return Place(kubectl, tmp_path)


def test_apply_creates_changes_and_says_what(place: Place, capsys: Said) -> None:
    assert place.fedtrain("apply", str(place.file), "--dry-run") == 0
    assert "would be created" in capsys.readouterr().out
    assert place.fedtrain("apply", str(place.file)) == 0
    assert f"digits in namespace {place.namespace} created" in capsys.readouterr().out
    assert place.fedtrain("apply", str(place.file)) == 0
    assert "as the file says already" in capsys.readouterr().out
    place.write(rounds=20)
    assert place.fedtrain("apply", str(place.file)) == 0
    assert "spec.rounds: 10 → 20" in capsys.readouterr().out
    stored = place.kubectl.read("federatedtraining", "digits", "-n", place.namespace)
    assert stored["spec"]["rounds"] == 20


def test_a_field_that_is_fixed_is_refused_with_its_sentence(place: Place, capsys: Said) -> None:
    place.fedtrain("apply", str(place.file))
    place.status(round=1, phase="Training", startedAt="2026-01-01T00:00:00Z")
    place.write(seed=5)
    assert place.fedtrain("apply", str(place.file)) == 1
    said = capsys.readouterr().err
    assert "spec.seed: is fixed once the training has started; undo the change" in said


def test_suspend_and_resume_say_what_will_happen(place: Place, capsys: Said) -> None:
    place.fedtrain("apply", str(place.file))
    counts = {"invited": 3, "running": 2, "reported": 1}
    place.status(round=4, phase="Training", participants=counts)
    capsys.readouterr()
    assert place.fedtrain("suspend", "digits") == 0
    said = "digits will rest in round 4: 2 of its pod sets are stopped, 1 reported updates are kept"
    assert capsys.readouterr().out.strip() == said
    assert place.fedtrain("suspend", "digits") == 0
    assert "is suspended already" in capsys.readouterr().out
    assert place.fedtrain("resume", "digits") == 0
    assert "goes on with round 4 of 10" in capsys.readouterr().out
    stored = place.kubectl.read("federatedtraining", "digits", "-n", place.namespace)
    assert stored["spec"]["suspend"] is False
    place.status(phase="Succeeded")
    assert place.fedtrain("suspend", "digits") == 1
    assert "has succeeded already" in capsys.readouterr().err


def test_describe_models_and_diff_tell_the_rounds(place: Place, capsys: Said) -> None:
    place.fedtrain("apply", str(place.file))
    late = {"name": "hospital-b", "state": "Late", "reason": "DeadlinePassed"}
    for number in (0, 1, 2):
        people = [{"name": "hospital-a", "state": "Accepted"}, {**late, "message": "too slow"}]
        place.round(number, participants=people, metrics={"accuracy": number / 4})
    model = {"round": 2, "path": "x/global/2/1/m", "digest": "sha256:2"}
    reason = {"reason": "ClaimMissing", "message": "no claim; create it"}
    place.status(phase="Blocked", round=3, globalModel=model, metrics={"accuracy": 0.5}, **reason)
    capsys.readouterr()
    assert place.fedtrain("describe", "digits") == 0
    said = capsys.readouterr().out
    assert f"digits in namespace {place.namespace} is Blocked" in said
    assert "2 of at most 10 rounds are published, by FedAvg." in said
    assert "Why not further: ClaimMissing: no claim; create it" in said
    assert "hospital-b was missing 3 times for DeadlinePassed." in said
    assert "too slow" in said
    assert place.fedtrain("describe", "digits", "-o", "json") == 0
    assert [r["spec"]["round"] for r in json.loads(capsys.readouterr().out)["rounds"]] == [0, 1, 2]
    assert place.fedtrain("models", "list", "digits", "-o", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["digest"] for row in rows] == ["sha256:0", "sha256:1", "sha256:2"]
    place.write(rounds=12)
    assert place.fedtrain("diff", "digits", str(place.file)) == 3
    assert "spec.rounds: 10 → 12" in capsys.readouterr().out
    assert place.fedtrain("diff", "digits", f"{place.namespace}/digits") == 0
    assert "they ask for the same" in capsys.readouterr().out


def test_plan_names_what_the_cluster_cannot_give(place: Place, capsys: Said) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": place.namespace},
    }
    room = {"cpu": "4", "memory": "8Gi", "pods": "10", "nvidia.com/gpu": "4"}
    place.must("create", "-f", "-", document=node)
    ready = {"allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]}
    words = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": ready}))
    place.must("patch", "node", place.namespace, *words)
    place.must("create", "quota", "small", "-n", place.namespace, "--hard=pods=2")
    gpus = {"resources": {"limits": {"nvidia.com/gpu": 8}}, "runtimeClassName": "nvidia"}
    trainer = {**place.spec["trainer"], **gpus, "priorityClassName": "soon"}
    exchange = {"size": "1Mi", "storageClassName": "fast"}
    sites = [{"name": n, "data": {"claimName": f"{n}-data"}} for n in ("hospital-a", "north")]
    evaluation = {"by": "north"}
    place.write(trainer=trainer, exchange=exchange, participants=sites, evaluation=evaluation)
    try:
        assert place.fedtrain("plan", str(place.file), "--cluster", "--parameters", "1M") == 3
    finally:
        place.must("delete", "node", place.namespace)
    said = capsys.readouterr().out
    for sentence in (
        "exchange.size: 1Mi is less than the",
        "no node has nvidia.com/gpu 8 for a pod of hospital-a",
        "24 nvidia.com/gpu are held at the same time, and all nodes together have 4",
        "the claim hospital-a-data does not exist (data of hospital-a); create it",
        "exchange.storageClassName: there is no StorageClass fast",
        "there is no PriorityClass soon",
        "there is no RuntimeClass nvidia",
        "the quota small leaves 2 pods, and ",
    ):
        assert f"missing     {sentence}" in said


def test_what_the_server_refuses_is_one_sentence(place: Place, capsys: Said) -> None:
    for words, sentence in (
        (("describe", "nothing"), "FederatedTraining nothing does not exist in namespace"),
        (("logs", "nothing"), "FederatedTraining nothing does not exist in namespace"),
        (("models", "list", "nothing"), "FederatedTraining nothing does not exist"),
        (("resume", "nothing"), "FederatedTraining nothing does not exist"),
    ):
        assert place.fedtrain(*words) == 1
        said = capsys.readouterr().err
        assert said.startswith(sentence)
        assert len(said.splitlines()) == 1
    assert main.main(["apply", str(place.file), "-n", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("the API server refuses: 404 namespaces")


def test_a_connection_that_is_refused_is_one_sentence(
    place: Place, capsys: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(Path(place.kubectl.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for words in (("describe", "digits"), ("watch", "digits"), ("apply", str(place.file))):
        assert place.fedtrain(*words) == 1
        said = capsys.readouterr().err
        assert said.startswith("the API server cannot be reached: ")
        assert len(said.splitlines()) == 1


def test_a_report_is_of_the_training_and_its_rounds_there(
    place: Place, tmp_path: Path, capsys: Said
) -> None:
    place.fedtrain("apply", str(place.file))
    place.status(phase="Training", round=2, metrics={"accuracy": 0.5}, evaluatedRound=1)
    place.round(1, metrics={"accuracy": 0.5})
    place.round(7, owner="of-one-that-is-gone", metrics={"accuracy": 0.25})
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert place.fedtrain("report", "digits", "-o", str(page)) == 0
    assert capsys.readouterr().out == f"{page}\n"
    text = page.read_text()
    assert '<data value="0.5" title="0.5">0.5</data>' in text
    assert "sha256:1" in text
    assert "sha256:7" not in text
    assert place.fedtrain("report", "nonesuch", "-o", str(page)) == 1
    assert capsys.readouterr().err.startswith("FederatedTraining nonesuch does not exist in")
    assert page.read_text() == text


def test_who_may_not_look_is_told_in_one_sentence(
    place: Place, capsys: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.must("create", "serviceaccount", "guest", "-n", place.namespace)
    code, token = place.kubectl("create", "token", "guest", "-n", place.namespace)
    assert code == 0, token
    config = yaml.safe_load(Path(place.kubectl.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": token.strip()}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for words in (("describe", "digits"), ("suspend", "digits"), ("apply", str(place.file))):
        assert place.fedtrain(*words) == 1
        said = capsys.readouterr().err
        assert said.startswith("the API server refuses: 403 federatedtrainings")
        assert len(said.splitlines()) == 1
    assert place.fedtrain("plan", str(place.file), "--cluster") == 0
    assert "you may not list nodes: that is not looked at" in capsys.readouterr().out


def test_kubectl_runs_it_as_a_plugin_and_completes_its_words(place: Place) -> None:
    paths = os.pathsep.join(str(ROOT / name) for name in ("operator", "trainer"))
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": beside, "PYTHONPATH": paths}

    def kubectl(*words: str) -> subprocess.CompletedProcess[str]:
        command = [place.kubectl.program, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    done = kubectl("fedtrain", "describe", "nothing", "-n", place.namespace)
    assert done.returncode == 1
    assert done.stderr.startswith("FederatedTraining nothing does not exist in namespace")
    assert kubectl("fedtrain", "--help").stdout.startswith("usage: kubectl fedtrain")
    assert kubectl("__complete", "fedtrain", "desc").stdout.splitlines()[0] == "describe"
