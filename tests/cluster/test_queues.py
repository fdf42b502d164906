"""A queue (Kueue) writes to our Jobs on a real API server, and the operator lets it."""

import pytest

from tests.cluster.stage import Stage, a_training

pytestmark = pytest.mark.apiserver

QUEUED = {"scheduling": {"queueName": "team-a"}}
FLAVOR = {"cloud.example.com/pool": "h200"}
TOLERATION = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}


async def admits(stage: Stage, name: str) -> None:
    """As Kueue does: the flavor's node selector and tolerations, then the suspension goes."""
    job = (await stage.jobs())[name]
    pod = job["spec"]["template"]["spec"]
    pod["nodeSelector"] = {**pod.get("nodeSelector", {}), **FLAVOR}
    pod["tolerations"] = [*pod.get("tolerations", []), TOLERATION]
    job["spec"]["suspend"] = False
    await stage.api.request("PUT", stage.path("jobs", name), job)


async def evicts(stage: Stage, name: str) -> None:
    """As Kueue does: suspended, what it had put in is taken out; the Job controller follows."""
    job = (await stage.jobs())[name]
    job["spec"]["suspend"] = True
    await stage.api.request("PUT", stage.path("jobs", name), job)
    job = (await stage.jobs())[name]
    condition = {"type": "Suspended", "status": "True", "reason": "JobSuspended"}
    job["status"] = {"ready": 0, "active": 0, "conditions": [condition]}
    await stage.api.request("PUT", stage.path("jobs", name, "status"), job)
    job = (await stage.jobs())[name]
    assert "startTime" not in job["status"]
    del job["spec"]["template"]["spec"]["nodeSelector"]
    del job["spec"]["template"]["spec"]["tolerations"]
    await stage.api.request("PUT", stage.path("jobs", name), job)


async def unfinished(stage: Stage) -> list[str]:
    jobs = await stage.jobs()
    over = {"SuccessCriteriaMet", "Complete", "FailureTarget", "Failed"}
    return [
        name
        for name, job in jobs.items()
        if not any(c["type"] in over for c in job.get("status", {}).get("conditions", []))
    ]


async def participant(stage: Stage, name: str) -> dict:
    status = (await stage.records())[-1]["status"]
    return next(p for p in status["participants"] if p["name"] == name)


async def in_training(stage: Stage) -> dict[str, str]:
    """Participant → its Job, in round 1; everything before was admitted and is done."""
    await stage.apply(a_training(**QUEUED, rounds=1, retries=0))
    for _ in range(10):
        await stage.settle()
        jobs = await stage.jobs()
        train = {
            job["metadata"]["labels"]["fedtrain.dev/participant"]: name
            for name, job in jobs.items()
            if job["metadata"]["labels"]["fedtrain.dev/role"] == "train"
        }
        if train:
            return train
        for name in await unfinished(stage):
            assert jobs[name]["spec"]["suspend"] is True
            await admits(stage, name)
            await stage.succeed(name, stage.plausible(jobs[name]))
    raise AssertionError("no participant was ever invited")


async def test_a_queued_training_says_so(stage):
    await stage.apply(a_training(**QUEUED))
    await stage.settle()
    await stage.settle()
    (job,) = (await stage.jobs()).values()
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    status = await stage.status()
    assert status["reason"] == "Queued"
    assert "'team-a'" in status["message"]


async def test_what_a_queue_writes_stays_and_an_eviction_costs_nothing(stage):
    north = (await in_training(stage))["north"]
    await stage.settle()
    assert (await participant(stage, "north"))["reason"] == "Queued"

    await admits(stage, north)
    await stage.ready(north)
    await stage.settle()
    running = await participant(stage, "north")
    assert running["state"] == "Running"

    await evicts(stage, north)
    stage.later(hours=3)
    await stage.settle()
    waiting = await participant(stage, "north")
    assert (waiting["state"], waiting["reason"]) == ("Invited", "Queued")
    assert waiting.get("failures", 0) == 0
    assert "startedAt" not in waiting

    await admits(stage, north)
    await stage.ready(north)
    await stage.settle()
    again = await participant(stage, "north")
    assert (again["state"], again["attempt"]) == ("Running", running["attempt"])
    assert again["startedAt"] > running["startedAt"]
    job = (await stage.jobs())[north]
    assert job["spec"]["suspend"] is False
    assert job["spec"]["template"]["spec"]["nodeSelector"] == FLAVOR
    assert job["spec"]["template"]["spec"]["tolerations"] == [TOLERATION]


async def test_a_whole_training_goes_through_a_queue(stage):
    await in_training(stage)
    for _ in range(10):
        if (await stage.status()).get("phase") == "Succeeded":
            break
        for name in await unfinished(stage):
            job = (await stage.jobs())[name]
            assert job["spec"]["suspend"] is True, "nothing runs before it is admitted"
            await admits(stage, name)
            await stage.succeed(name, stage.plausible(job))
        await stage.settle()
    assert (await stage.status())["phase"] == "Succeeded"
    assert not any(verb.startswith(("PUT", "PATCH")) and "/jobs" in verb for verb in stage.requests)


async def test_a_job_that_somebody_suspended_by_hand_waits(stage):
    await stage.apply(a_training())
    await stage.settle()
    (name,) = await stage.jobs()
    job = (await stage.jobs())[name]
    job["spec"]["suspend"] = True
    await stage.api.request("PUT", stage.path("jobs", name), job)
    await stage.settle()
    assert (await stage.status())["reason"] == "JobSuspended"
    assert (await stage.jobs())[name]["spec"]["suspend"] is True
