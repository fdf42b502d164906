"""How pods end, what cannot be made, as a real API server stores it: action, reason, counter."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from fedoperator import errors
from tests.cluster.stage import NAME, Stage, a_training

pytestmark = pytest.mark.apiserver
POLICY, LIMIT = "PodFailurePolicy", "BackoffLimitExceeded"
REACHED = "Job has reached the specified backoff limit"
NORTH = "digits-train-1-north-1"


def by_code(code: int, rule: int) -> str:
    """As matchPodFailurePolicy of the Job controller writes it."""
    text = f"Container train for pod t/{NORTH}-0-x failed with exit code {code}"
    return f"{text} matching FailJob rule at index {rule}"


@dataclass(frozen=True)
class End:
    """How a pod ended, what its Job says of it, and whom that is charged to."""

    what: str
    says: tuple[str, str]
    failure: str
    reason: str
    ended: dict[str, Any] | None = None
    pod: dict[str, str] = field(default_factory=dict)
    state: str = "Retrying"


DISRUPTED = f"Pod t/{NORTH}-0-x has condition DisruptionTarget matching FailJob rule at index 0"
ENDS = (
    End("preempted, drained or evicted for its node", (POLICY, DISRUPTED), "Free", "Disrupted"),
    End("full exchange", (POLICY, by_code(74, 2)), "Free", "Exchange"),
    End("a passing failure", (POLICY, by_code(75, 2)), "Counted", "TryAgain"),
    End("broken contract", (POLICY, by_code(64, 1)), "Contract", "Contract", state="Failed"),
    End("bad data", (POLICY, by_code(65, 1)), "Data", "Data", state="Failed"),
    End(
        "out of memory",
        (LIMIT, REACHED),
        "Counted",
        "OOMKilled",
        {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
    ),
    End(
        "an exit code that is not ours",
        (LIMIT, REACHED),
        "Counted",
        "Error",
        {"terminated": {"exitCode": 3, "reason": "Error"}},
    ),
    End(
        "over a limit of its own",
        (POLICY, by_code(75, 2)),
        "Counted",
        "Evicted",
        {"terminated": {"exitCode": 75, "reason": "Error"}},
        {"reason": "Evicted", "message": 'Usage of EmptyDir volume "w" exceeds the limit "1Gi". '},
    ),
    End(
        "refused by its node",
        (LIMIT, REACHED),
        "Free",
        "PodRejected",
        None,
        {"reason": "OutOfcpu", "message": "Pod was rejected: Node didn't have enough resource"},
    ),
    End(
        "the backstop",
        ("DeadlineExceeded", "Job was active longer than specified deadline"),
        "Free",
        "DeadlineExceeded",
    ),
)


async def in_round_1(stage: Stage, **changes: Any) -> None:
    await stage.apply(a_training(rounds=1, **changes))
    await stage.settle()
    for _ in range(2):
        await stage.work_off()
        await stage.settle()
    assert NORTH in await stage.jobs()


async def north(stage: Stage) -> dict[str, Any]:
    participants = (await stage.records())[1]["status"]["participants"]
    found: dict[str, Any] = next(p for p in participants if p["name"] == "north")
    return found


@pytest.mark.parametrize("end", ENDS, ids=[end.what for end in ENDS])
async def test_each_end_of_a_pod_is_charged_to_whom_it_belongs(stage, end):
    await in_round_1(stage)
    if end.ended or end.pod:
        await stage.pod(NORTH, "Failed", end.ended, **end.pod)
    await stage.gives_up(NORTH, *end.says)
    await stage.settle()
    found = await north(stage)
    failures = found.get("failures", 0)
    assert (found["state"], found["failure"], found["reason"], failures) == (
        end.state,
        end.failure,
        end.reason,
        int(end.failure == "Counted"),
    )
    assert (end.reason in {reason for reason, _ in await stage.events()}) is True
    counted = f'fedtrain_participant_attempt_failures{{namespace="{stage.namespace}"'
    series = f'{counted},participant="north",training="digits"}} {failures}.0'
    assert series in stage.telemetry.render().decode()
    stage.later(minutes=1)
    await stage.settle()
    again = "digits-train-1-north-2" in await stage.jobs()
    assert again is (end.state == "Retrying" or (await north(stage))["attempt"] == 2)


async def test_a_pod_on_a_lost_node_is_given_up_and_its_work_done_elsewhere(stage):
    """Its Job has no condition for as long as the node is away: podReplacementPolicy is Failed."""
    await in_round_1(stage)
    pod = await stage.pod(NORTH, "Running", {"running": {}}, node="gone")
    await stage.ready(NORTH)
    await stage.settle()
    assert (await north(stage))["state"] == "Running"
    await stage.delete("pods", pod)  # as the taint manager does after five minutes
    there = await stage.api.request("GET", stage.path("pods", pod))
    assert "deletionTimestamp" in there["metadata"]
    await stage.unready(NORTH)
    stage.later(seconds=90)
    await stage.settle()
    assert (await north(stage))["state"] == "Running"
    stage.later(minutes=2)
    await stage.settle()
    found = await north(stage)
    assert (found["state"], found["reason"]) == ("Retrying", "NodeLost")
    assert "failures" not in found
    assert "its node gone does not answer" in found["message"]
    stage.later(seconds=3)
    await stage.settle()
    assert "digits-train-1-north-2" in await stage.jobs()
    assert NORTH not in await stage.jobs()


async def terminate(stage: Stage) -> None:
    """The namespace is being deleted; nobody is there who would ever finish that."""
    path = f"/api/v1/namespaces/{stage.namespace}"
    await stage.api.request("DELETE", path, {"propagationPolicy": "Background"})
    there = await stage.api.request("GET", path)
    assert there["status"]["phase"] == "Terminating"


async def test_in_a_namespace_that_is_being_deleted_nothing_is_tried_in_vain_for_long(stage):
    await stage.apply(a_training([f"site-{n:03}" for n in range(40)], rounds=1))
    await stage.settle()
    for _ in range(2):
        await stage.work_off()
        await stage.settle()
    for name in await stage.jobs():
        if name.startswith("digits-train"):
            await stage.delete("jobs", name)
    await terminate(stage)
    stage.tried.clear()
    asked = await stage.look()
    posted = sum(n for request, n in stage.tried.items() if request.startswith("POST"))
    assert posted <= 16, "a look gives up after ten refusals, of eight at once"
    assert asked.wake_at is not None
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "Refused")
    assert "because it is being terminated" in status["message"]
    before = sum(stage.tried.values())
    for _ in range(60):
        stage.later(seconds=1)
        await stage.look()
    tries = sum(n for request, n in stage.tried.items() if request.startswith("POST")) - posted
    assert tries <= 40 * 6 + 16, "each of forty is tried again after 2, 4, 8, 16, 32 s"
    assert before < sum(stage.tried.values())


async def test_a_round_that_cannot_begin_in_such_a_namespace_is_told(stage):
    await stage.apply(a_training(rounds=1))
    await terminate(stage)
    for _ in range(2):
        with pytest.raises(errors.Refused, match="because it is being terminated"):
            await stage.look()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "Refused")
    assert "because it is being terminated" in status["message"]
    blocked = {c["type"]: c["reason"] for c in status["conditions"]}
    assert blocked["Blocked"] == "Refused"
    assert f'reason="Refused",training="{NAME}"' in stage.telemetry.render().decode()
