"""Pods that stay, on the real cluster: the bytes of cold rounds, whoever dies."""

from typing import Any

import pytest
from federation import (
    NAMESPACE,
    a_federation,
    kill,
    pods,
    reaches,
    record_of,
    running_pod,
    wait_until,
)

from devcluster import stack

pytestmark = pytest.mark.cluster

ROUNDS = 6
SLOW = {"name": "SECONDS", "value": "1"}


def a_resident_federation(name: str, image: str, **spec: Any) -> dict[str, Any]:
    federation = a_federation(
        name, image, rounds=ROUNDS, evaluation={"by": "Participants"}, retries=1, **spec
    )
    federation["spec"]["trainer"]["env"] = [SLOW]
    return federation


def digests(name: str) -> list[str]:
    return [
        record_of(name, number)["status"]["globalModel"]["digest"] for number in range(ROUNDS + 1)
    ]


def jobs_made(name: str) -> dict[str, int]:
    """Role → how many Jobs there were of it."""
    found: dict[str, int] = {}
    for job in stack.get("jobs", "-n", NAMESPACE, "-l", f"fedtrain.dev/training={name}")["items"]:
        role = job["metadata"]["labels"]["fedtrain.dev/role"]
        found[role] = found.get(role, 0) + 1
    return found


def in_round(name: str, number: int) -> None:
    """Wait until that round trains."""

    def trains() -> bool:
        found = stack.get("federatedrounds", "-n", NAMESPACE)["items"]
        return any(
            r["metadata"]["name"] == f"{name}-{number:05d}"
            and r.get("status", {}).get("phase") == "Training"
            for r in found
        )

    wait_until(f"round {number} of {name}", trains)


@pytest.fixture(scope="module")
def cold(installed: stack.Images) -> list[str]:
    """The digest of each round with pods of a round each."""
    stack.apply(a_resident_federation("cold", installed.trainer))
    reaches("cold", "Succeeded", seconds=400)
    return digests("cold")


def test_resident_rounds_give_the_digests_of_cold_ones_with_one_job_each(installed, cold):
    stack.apply(a_resident_federation("warm", installed.trainer, pods="Resident"))
    reaches("warm", "Succeeded")
    assert digests("warm") == cold
    made = jobs_made("warm")
    assert (made["train"], made.get("evaluate"), made.get("aggregate")) == (3, None, None)

    def all_over() -> bool:
        phases = {pod["status"]["phase"] for pod in pods("warm", "fedtrain.dev/resident=true")}
        return phases <= {"Succeeded"}

    wait_until("scripts and hub come to their ends by themselves", all_over, seconds=60)


def test_a_participant_that_is_killed_comes_back_and_the_others_stay(installed, cold):
    stack.apply(a_resident_federation("warm-pod", installed.trainer, pods="Resident"))
    in_round("warm-pod", 3)
    kill(running_pod("warm-pod", "fedtrain.dev/role=train", "fedtrain.dev/participant=south"))
    reaches("warm-pod", "Succeeded")
    assert digests("warm-pod") == cold
    names = [pod["metadata"]["labels"] for pod in pods("warm-pod", "fedtrain.dev/role=train")]
    others = [n for n in names if n["fedtrain.dev/participant"] != "south"]
    assert {n["fedtrain.dev/round"] for n in others} == {"1"}, "the others kept their pods"


def test_the_hub_and_the_operator_are_killed_and_nothing_changes(installed, cold):
    stack.apply(a_resident_federation("warm-hub", installed.trainer, pods="Resident"))
    in_round("warm-hub", 2)
    kill(running_pod("warm-hub", "fedtrain.dev/role=prepare"))
    in_round("warm-hub", 4)
    operator = stack.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=fedtrain")["items"]
    kill(operator[0]["metadata"]["name"])
    reaches("warm-hub", "Succeeded")
    assert digests("warm-hub") == cold


def test_pods_that_are_idle_for_long_are_let_go(installed):
    spec = {"selection": {"fraction": 0.3, "minimum": 2, "seed": 3}, "idleTimeout": "3s"}
    federation = a_resident_federation("warm-idle", installed.trainer, pods="Resident", **spec)
    federation["spec"]["trainer"]["env"] = [{"name": "SECONDS", "value": "3"}]
    stack.apply(federation)
    reaches("warm-idle", "Succeeded")
    made = jobs_made("warm-idle")
    assert made.get("train", 0) + made.get("evaluate", 0) > 3, "let go, and made again"
