"""`fedtrain track --all` beside a real API server, with the rights that the chart gives it."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedoperator.cli.server import Server
from fedoperator.cli.tracker import Platform
from fedoperator.tracking import figures
from fedoperator.tracking.patient import Patient, Telling
from tests.chart.test_tracking import READS
from tests.tracking.conftest import track
from tests.tracking.test_figures import Heard
from tests.tracking.test_tensorboard import read

pytestmark = pytest.mark.apiserver
BEGAN, ENDED = "2026-01-01T12:00:00Z", "2026-01-01T12:01:30Z"


class Hospitals:
    """A namespace, and trainings in it whose status the tests write as the operator would."""

    def __init__(self, kubectl: Any, folder: Path) -> None:
        self.kubectl, self.folder = kubectl, folder
        self.name = f"hospitals-{uuid.uuid4().hex[:6]}"
        self("create", "namespace", self.name)
        rules = [
            {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
            for group, resource, verb, _ in sorted(READS)
        ]
        self.create("Role", "rbac.authorization.k8s.io/v1", "tracker", rules=rules)
        self.create("ServiceAccount", "v1", "tracker")
        self.create(
            "RoleBinding",
            "rbac.authorization.k8s.io/v1",
            "tracker",
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tracker"},
            subjects=[{"kind": "ServiceAccount", "name": "tracker", "namespace": self.name}],
        )
        token = self("create", "token", "tracker", "-n", self.name).strip()
        document = yaml.safe_load(kubectl.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": token}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(document))

    def __call__(self, *words: str, document: Any = None) -> str:
        code, said = self.kubectl(*words, document=document)
        assert code == 0, said
        return str(said)

    def create(self, kind: str, version: str, name: str, **fields: Any) -> str:
        """Its uid."""
        metadata = {"name": name, "namespace": self.name, **fields.pop("metadata", {})}
        document = {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
        words = ("create", "-f", "-", "-o", "jsonpath={.metadata.uid}")
        return self(*words, document=document)

    def training(self, name: str, **spec: Any) -> str:
        whole = {
            "rounds": 5,
            "trainer": {"image": "x", "command": ["python", "train.py"]},
            "participants": [{"name": "north"}],
            "exchange": {"size": "1Gi"},
            **spec,
        }
        return self.create("FederatedTraining", "fedtrain.dev/v1alpha1", name, spec=whole)

    def status(self, kind: str, name: str, **status: Any) -> None:
        change = json.dumps({"status": status})
        words = ("patch", kind, name, "-n", self.name, "--subresource=status", "--type=merge")
        self(*words, "-p", change)

    def round(self, training: str, uid: str, number: int, accuracy: float) -> None:
        """A published one, and the training in the next."""
        owner = {
            "apiVersion": "fedtrain.dev/v1alpha1",
            "kind": "FederatedTraining",
            "name": training,
            "uid": uid,
        }
        name = f"{training}-{number:05d}"
        self.create(
            "FederatedRound",
            "fedtrain.dev/v1alpha1",
            name,
            metadata={"ownerReferences": [owner]},
            spec={"training": training, "round": number, "invited": ["north"]},
        )
        who = [{"name": "north", "state": "Accepted", "samples": 10, "weight": 1.0}]
        self.status(
            "fedr",
            name,
            phase="Published",
            startedAt=BEGAN,
            publishedAt=ENDED,
            participants=who if number else [],
            metrics={"accuracy": accuracy} if number else {},
        )
        self.status("fedt", training, phase="Training", round=number + 1, startedAt=BEGAN)


@pytest.fixture
def hospitals(kubectl: Any, tmp_path: Path) -> Iterator[Hospitals]:
    made = Hospitals(kubectl, tmp_path)
    yield made
    kubectl("delete", "namespace", made.name, "--wait=false")


Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(hospitals: Hospitals, tmp_path: Path) -> Iterator[Start]:
    started = []

    def start() -> subprocess.Popen[str]:
        process = track(
            *("--all", "-n", hospitals.name, "--tensorboard", tmp_path / "boards"),
            KUBECONFIG=str(hospitals.kubeconfig),
            MLFLOW_TRACKING_URI="",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        print(process.communicate(timeout=30)[1])  # for whoever looks why a test failed


def shown(folder: Path, namespace: str, training: str, uid: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of the accuracy."""
    board = folder / "boards" / namespace / f"{training}-{uid[:8]}"
    found = read(board).get("global/accuracy", []) if board.exists() else []
    return [(step, round(value, 6)) for step, value in found]


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.2)


def test_it_sends_the_rounds_of_those_who_ask_and_goes_on_after_it_was_killed(
    hospitals: Hospitals, start: Start, tmp_path: Path
) -> None:
    uid = hospitals.training("digits", tracking={"tensorboard": {}})
    silent = hospitals.training("silent")
    for training, of in (("digits", uid), ("silent", silent)):
        hospitals.round(training, of, 0, 0.0)
        hospitals.round(training, of, 1, 0.5)

    def accuracy() -> list[tuple[int, float]]:
        return shown(tmp_path, hospitals.name, "digits", uid)

    first = start()
    until(lambda: accuracy() == [(1, 0.5)])
    first.kill()
    _, said = first.communicate(timeout=30)
    assert "digits is tracked by TensorBoard" in said
    assert "level=WARNING" not in said, "a right is missing"
    hospitals.round("digits", uid, 2, 0.75)
    hospitals.round("digits", uid, 3, 0.875)
    hospitals.status("fedt", "digits", phase="Succeeded", round=3, finishedAt=ENDED)
    second = start()
    until(lambda: accuracy() == [(1, 0.5), (2, 0.75), (3, 0.875)])
    second.terminate()
    second.communicate(timeout=30)
    assert second.returncode == 0
    board = tmp_path / "boards" / hospitals.name / f"digits-{uid[:8]}"
    assert [step for step, _ in read(board)[figures.STEP]] == [0, 1, 2, 3]
    assert [path.name for path in board.parent.iterdir()] == [board.name]


def test_one_training_by_its_name_is_sent_without_asking_for_it(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    uid = hospitals.training("digits")
    hospitals.round("digits", uid, 0, 0.0)
    hospitals.round("digits", uid, 1, 0.5)
    words = ("digits", "-n", hospitals.name, "--tensorboard", tmp_path / "boards")
    process = track(*words, KUBECONFIG=str(hospitals.kubeconfig))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("digits is tracked by TensorBoard: ")
    assert shown(tmp_path, hospitals.name, "digits", uid) == [(1, 0.5)]


class Remembers(Heard):
    """A tracker that remembers whom it was left by."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[str] = []

    def abandon(self, run: figures.Run) -> None:
        self.left.append(run.uid)


def test_one_that_is_deleted_or_asks_no_more_is_left_and_one_that_is_over_is_not(
    hospitals: Hospitals,
) -> None:
    uids = {
        name: hospitals.training(name, tracking={"mlflow": {}})
        for name in ("deleted", "silent", "over", "stays")
    }
    for name, uid in uids.items():
        hospitals.round(name, uid, 0, 0.0)
    hospitals.status("fedt", "over", phase="Failed", finishedAt=ENDED)
    said: list[str] = []
    sink = Remembers()
    tracker = Patient("MLflow", sink, Telling(say=said.append, complain=said.append))
    server = Server(hospitals.name, hospitals.kubeconfig)
    platform = Platform(server, everywhere=False, trackers={"mlflow": tracker})
    platform.look()
    assert (sink.numbers, sink.left) == ([0, 0, 0, 0], [])
    platform.look()
    assert sink.numbers == [0, 0, 0, 0], "nothing is new"
    for name in ("deleted", "over"):
        hospitals("delete", "fedt", name, "-n", hospitals.name)
    words = ("patch", "fedt", "silent", "-n", hospitals.name, "--type=merge", "-p")
    hospitals(*words, '{"spec": {"tracking": null}}')
    platform.look()
    assert sorted(sink.left) == sorted([uids["deleted"], uids["silent"]])
    assert len(said) == 4
