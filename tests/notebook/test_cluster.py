"""Submitted to a real API server, whose objects the tests change as an operator would."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from fedoperator.notebook import ClusterRun, Failed, FederatedTraining, LocalRun, Refused

pytestmark = pytest.mark.apiserver

Federation = Callable[..., FederatedTraining]


class Namespace:
    """One of its own, and the operator's part in it."""

    def __init__(self, kubectl: Any) -> None:
        self.name = f"notebook-{uuid.uuid4().hex[:8]}"
        self.kubectl = kubectl
        self._must("create", "namespace", self.name)

    def status(self, **status: Any) -> None:
        self._patch("federatedtraining", "mean", status)

    def round(self, number: int, **status: Any) -> None:
        """A FederatedRound of both participants, published."""
        name = f"mean-{number:05d}"
        spec = {"training": "mean", "round": number, "invited": ["north", "south"]}
        document = {
            "apiVersion": "fedtrain.dev/v1alpha1",
            "kind": "FederatedRound",
            "metadata": {"name": name, "namespace": self.name},
            "spec": spec,
        }
        self._must("create", "-f", "-", document=document)
        participants = [{"name": n, "state": "Accepted", "weight": 0.5} for n in spec["invited"]]
        published = {"phase": "Published", "participants": participants, **status}
        self._patch("federatedround", name, published)

    def _patch(self, kind: str, name: str, status: dict[str, Any]) -> None:
        words = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        self._must("patch", kind, name, "-n", self.name, *words)

    def _must(self, *words: str, document: Any = None) -> None:
        code, answer = self.kubectl(*words, document=document)
        assert code == 0, answer


@pytest.fixture
def namespace(kubectl: Any, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    monkeypatch.setenv("KUBECONFIG", str(kubectl.kubeconfig))
    return Namespace(kubectl)


def within(given: Any, stored: Any) -> bool:
    """Whether everything that was given is stored as it was."""
    if isinstance(given, dict):
        return all(name in stored and within(value, stored[name]) for name, value in given.items())
    if isinstance(given, list):
        return len(given) == len(stored) and all(map(within, given, stored))
    return bool(given == stored)


def test_what_is_submitted_is_what_yaml_would_have_applied(
    namespace: Namespace, federation: Federation
) -> None:
    training = federation()
    run = training.submit(namespace.name)
    stored = namespace.kubectl.read("fedt", "mean", "-n", namespace.name)
    given = json.loads(json.dumps(training.document["spec"]))
    assert within(given, stored["spec"]), "the API server adds defaults, and changes nothing"
    assert (run.name, run.namespace, run.status.phase) == ("mean", namespace.name, "Pending")
    assert run.rounds == []


def test_a_kubeconfig_may_be_named(
    namespace: Namespace, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    file = namespace.kubectl.kubeconfig
    assert federation().submit(namespace.name, kubeconfig=file).name == "mean"
    assert ClusterRun("mean", namespace.name, kubeconfig=file).status.phase == "Pending"
    with pytest.raises(Refused, match="no cluster to ask"):
        ClusterRun("mean", namespace.name)


def test_rounds_come_as_the_operator_publishes_them(
    namespace: Namespace, federation: Federation
) -> None:
    run = federation().submit(namespace.name)
    seen: list[tuple[int, dict[str, float], tuple[str, ...]]] = []
    follows = threading.Thread(
        target=lambda: seen.extend((r.number, dict(r.metrics), r.accepted) for r in run)
    )
    follows.start()
    namespace.round(1, metrics={"accuracy": 0.5})
    namespace.status(phase="Training", round=2)
    until = time.monotonic() + 30
    while not seen and time.monotonic() < until:
        time.sleep(0.1)
    assert seen == [(1, {"accuracy": 0.5}, ("north", "south"))]
    namespace.round(2, metrics={"accuracy": 0.75})
    namespace.status(phase="Succeeded", round=2, metrics={"accuracy": 0.75})
    follows.join(30)
    assert [number for number, _, _ in seen] == [1, 2]
    assert [rnd.number for rnd in ClusterRun("mean", namespace.name)] == [1, 2]


def test_a_round_under_evaluation_is_not_over(namespace: Namespace, federation: Federation) -> None:
    run = federation().submit(namespace.name)
    namespace.round(1, evaluation=[{"name": "north", "state": "Running"}])
    namespace.status(phase="Evaluating", round=1)
    assert run.rounds == []
    namespace.status(phase="Failed", round=1, reason="NoSubmit", message="call rnd.submit(...)")
    with pytest.raises(Failed, match=r"^NoSubmit: call rnd\.submit"):
        run.wait()


def test_submitted_again_it_is_the_same_training_or_a_changed_one(
    namespace: Namespace, federation: Federation
) -> None:
    federation().submit(namespace.name)
    namespace.status(phase="Training", round=1)
    first = namespace.kubectl.read("fedt", "mean", "-n", namespace.name)["metadata"]
    federation().submit(namespace.name)
    again = namespace.kubectl.read("fedt", "mean", "-n", namespace.name)["metadata"]
    assert (again["uid"], again["generation"]) == (first["uid"], first["generation"])
    federation(rounds=7).submit(namespace.name)
    changed = namespace.kubectl.read("fedt", "mean", "-n", namespace.name)
    assert (changed["metadata"]["uid"], changed["spec"]["rounds"]) == (first["uid"], 7)
    with pytest.raises(Refused, match=r"^spec\.exchange"):
        federation(exchange={"size": "2Gi"}).submit(namespace.name)


def test_it_is_suspended_resumed_and_deleted(namespace: Namespace, federation: Federation) -> None:
    run = federation().submit(namespace.name)
    for suspended in (True, False):
        (run.suspend if suspended else run.resume)()
        stored = namespace.kubectl.read("fedt", "mean", "-n", namespace.name)
        assert stored["spec"]["suspend"] is suspended
    run.delete()
    with pytest.raises(Refused, match=f"mean does not exist in namespace {namespace.name}"):
        ClusterRun("mean", namespace.name)


def test_its_model_is_read_where_the_claim_is_mounted(
    namespace: Namespace, federation: Federation, undisturbed: Any
) -> None:
    local = LocalRun(undisturbed)
    assert local.status.global_model is not None
    run = federation().submit(namespace.name)
    with pytest.raises(Refused, match="mean has no global model yet"):
        run.model()
    namespace.status(phase="Succeeded", round=3, globalModel=local.status.global_model.to_dict())
    with pytest.raises(Refused, match=f"on the claim mean-exchange in namespace {namespace.name}"):
        run.model()
    assert run.model(exchange=undisturbed / "exchange").keys() == {"b", "w"}


def test_a_namespace_that_is_not_there_is_the_servers_own_sentence(
    namespace: Namespace, federation: Federation
) -> None:
    with pytest.raises(Refused, match=r'the API server refuses: 404 .*"nowhere" not found'):
        federation().submit("nowhere")
