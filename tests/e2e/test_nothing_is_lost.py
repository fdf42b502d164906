"""Killing things on the real cluster loses nothing: the end is the same to the byte."""

import time

import pytest
from federation import NAMESPACE, a_federation, kill, reaches, record_of, running_pod, status_of

from devcluster import stack

pytestmark = pytest.mark.cluster

SLOW = {"name": "SECONDS", "value": "2"}
LARGE = {"name": "SIZE", "value": "20000000"}


def a_large_federation(name: str, image: str) -> dict:
    federation = a_federation(name, image, retries=1, rounds=2)
    federation["spec"]["trainer"]["env"] = [SLOW, LARGE]
    return federation


@pytest.fixture(scope="module")
def undisturbed(installed: stack.Images) -> dict:
    """The digest of each round when nobody disturbs it."""
    stack.apply(a_large_federation("calm", installed.trainer))
    reaches("calm", "Succeeded")
    return {n: record_of("calm", n)["status"]["globalModel"]["digest"] for n in range(3)}


def digests(name: str) -> dict[int, str]:
    return {n: record_of(name, n)["status"]["globalModel"]["digest"] for n in range(3)}


def test_the_operators_pod_killed_while_a_round_trains(installed, undisturbed):
    stack.apply(a_large_federation("no-operator", installed.trainer))
    running_pod("no-operator", "fedtrain.dev/role=train")
    operator = stack.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=fedtrain")["items"]
    kill(operator[0]["metadata"]["name"])
    reaches("no-operator", "Succeeded")
    assert digests("no-operator") == undisturbed


def test_a_participants_pod_killed_mid_training(installed, undisturbed):
    stack.apply(a_large_federation("no-pod", installed.trainer))
    selector = ("fedtrain.dev/role=train", "fedtrain.dev/round=2", "fedtrain.dev/participant=south")
    kill(running_pod("no-pod", *selector))
    reaches("no-pod", "Succeeded")
    south = next(
        p for p in record_of("no-pod", 2)["status"]["participants"] if p["name"] == "south"
    )
    assert (south["state"], south["attempt"]) == ("Accepted", 2)
    assert digests("no-pod") == undisturbed


def test_the_aggregators_pod_killed_mid_sum(installed, undisturbed):
    stack.apply(a_large_federation("no-sum", installed.trainer))
    kill(running_pod("no-sum", "fedtrain.dev/role=aggregate"))
    reaches("no-sum", "Succeeded")
    first = record_of("no-sum", 1)["status"]
    assert first["aggregation"]["attempt"] == 2
    assert {p.get("failures", 0) for p in first["participants"]} == {0}
    assert digests("no-sum") == undisturbed


def test_suspend_takes_the_pods_away_and_resume_goes_on(installed, undisturbed):
    stack.apply(a_large_federation("pause", installed.trainer))
    running_pod("pause", "fedtrain.dev/role=train")
    patch = '{"spec":{"suspend":%s}}'
    change = ("patch", "federatedtraining", "pause", "-n", NAMESPACE, "--type=merge", "-p")
    stack.kubectl(*change, patch % "true")
    reaches("pause", "Suspended")
    deadline = time.monotonic() + 60
    jobs = ("jobs", "-n", NAMESPACE, "-l", "fedtrain.dev/training=pause,fedtrain.dev/role=train")
    while stack.get(*jobs)["items"]:
        assert time.monotonic() < deadline, (
            "unfinished Jobs stay although the training is suspended"
        )
        time.sleep(0.5)
    stack.kubectl(*change, patch % "false")
    reaches("pause", "Succeeded")
    assert {p.get("failures", 0) for p in record_of("pause", 1)["status"]["participants"]} == {0}
    assert digests("pause") == undisturbed


def test_deleting_a_training_deletes_its_children_and_keeps_its_model(installed, undisturbed):
    model = status_of("calm")["globalModel"]["path"]
    stack.kubectl("delete", "federatedtraining", "calm", "-n", NAMESPACE)
    deadline = time.monotonic() + 60
    while stack.get("jobs", "-n", NAMESPACE, "-l", "fedtrain.dev/training=calm")["items"]:
        assert time.monotonic() < deadline, "Jobs outlive their training"
        time.sleep(0.5)
    claim = stack.get("persistentvolumeclaim", "calm-exchange", "-n", NAMESPACE)
    volume = stack.get("persistentvolume", claim["spec"]["volumeName"])
    assert claim["status"]["phase"] == "Bound"
    assert model.startswith("calm-")
    assert volume["status"]["phase"] == "Bound"
