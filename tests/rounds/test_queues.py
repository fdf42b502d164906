"""spec.scheduling and what a queue does to Jobs: waiting costs nobody anything."""

import pytest
from world import a_training, a_world

from fedoperator.rounds import jobs, observed
from fedoperator.rounds.observed import ChildState
from fedtrain.contract import Role
from tests.pods.rendering import job_of, pod_of, training_of, workloads
from tests.pods.restricted import offences

QUEUED = {"scheduling": {"queueName": "team-a"}}
TWO_NODES = {"image": "digits", "command": ["torchrun", "train.py"], "nodes": 2}


def rendered(**spec):
    """Role → Job, of a training with an evaluator and an import."""
    document = {
        "metadata": {"name": "digits"},
        "spec": {
            "rounds": 1,
            "trainer": TWO_NODES,
            "participants": [{"name": "north"}],
            "exchange": {"size": "1Gi"},
            **spec,
        },
    }
    return {made.identity.role: job_of(made) for made in workloads(training_of(document))}


def test_every_job_stands_in_the_queue_and_begins_suspended():
    for role, job in rendered(**QUEUED).items():
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a", role
        assert job["spec"]["suspend"] is True
        pod = pod_of(job)
        assert "kueue.x-k8s.io/queue-name" not in pod["metadata"]["labels"]


def test_without_a_queue_nobody_speaks_of_suspension():
    for job in rendered().values():
        assert "suspend" not in job["spec"]
        assert not any(label.startswith("kueue") for label in job["metadata"]["labels"])


def test_priority_and_scheduler_are_usual_and_a_trainer_has_its_own():
    usual = {"priorityClassName": "low", "schedulerName": "mine"}
    trainer = {**TWO_NODES, "priorityClassName": "high"}
    found = rendered(scheduling=usual, trainer=trainer)
    specs = {role: job["spec"]["template"]["spec"] for role, job in found.items()}
    assert specs[Role.AGGREGATE]["priorityClassName"] == "low"
    assert specs[Role.PREPARE]["schedulerName"] == "mine"
    assert specs[Role.TRAIN]["priorityClassName"] == "high"
    assert specs[Role.TRAIN]["schedulerName"] == "mine"
    assert "queueName" not in specs[Role.PREPARE]


@pytest.mark.parametrize("mode", ["Required", "Preferred"])
def test_pods_of_one_attempt_attract_each_other(mode):
    trainer = {**TWO_NODES, "topology": {"key": "rack", "mode": mode}}
    job = rendered(trainer=trainer)[Role.TRAIN]
    (kind, terms), *others = job["spec"]["template"]["spec"]["affinity"]["podAffinity"].items()
    assert not others
    assert kind == f"{mode.lower()}DuringSchedulingIgnoredDuringExecution"
    term = terms[0] if mode == "Required" else terms[0]["podAffinityTerm"]
    assert term["topologyKey"] == "rack"
    labels = term["labelSelector"]["matchLabels"]
    assert labels == job["spec"]["template"]["metadata"]["labels"]
    assert labels[observed.ATTEMPT_LABEL] == "1"
    assert list(offences(pod_of(job))) == []


@pytest.mark.parametrize("mode", ["Required", "Preferred"])
def test_kueue_is_asked_by_its_annotation(mode):
    topology = {"key": "rack", "mode": mode, "by": "Queue"}
    found = rendered(trainer={**TWO_NODES, "topology": topology}, **QUEUED)
    template = found[Role.TRAIN]["spec"]["template"]
    name = f"kueue.x-k8s.io/podset-{mode.lower()}-topology"
    assert template["metadata"]["annotations"] == {name: "rack"}
    assert "affinity" not in template["spec"]
    assert "annotations" not in found[Role.AGGREGATE]["spec"]["template"]["metadata"]


def test_one_pod_is_near_itself():
    trainer = {**TWO_NODES, "nodes": 1, "topology": {"key": "rack"}}
    assert "affinity" not in rendered(trainer=trainer)[Role.TRAIN]["spec"]["template"]["spec"]


def a_job(**changes):
    made = next(w for w in workloads(a_training()) if w.identity.role is Role.TRAIN)
    job = jobs.objects(made, "controller")[-1]
    job["metadata"] |= {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    job["spec"] |= changes.pop("spec", {})
    return {**job, **changes}


def test_a_suspended_job_is_queued_whatever_its_pods_still_are():
    seen = observed.child(a_job(spec={"suspend": True}, status={"ready": 1, "active": 1}))
    assert (seen.state, seen.queued) == (ChildState.PENDING, True)
    assert seen.trouble.reason == "JobSuspended"


def test_a_job_that_is_over_is_over_although_it_is_suspended():
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    seen = observed.child(a_job(spec={"suspend": True}, status={"conditions": [failed]}))
    assert (seen.state, seen.queued) == (ChildState.FAILED, False)


def test_a_queued_participant_is_shown_so_and_no_clock_runs():
    world = a_world(quorum={"minimum": 3, "deadline": "10m"}).in_round(1)
    north = world.identity("north")
    world.is_queued(north)
    world.passes(hours=5)
    world.settle()
    seen = world.participant("north")
    assert (seen.state, seen.reason) == ("Invited", "Queued")
    assert "team-a" in seen.message
    assert seen.started_at is None


def test_an_eviction_is_no_failure_and_the_clock_begins_anew():
    world = a_world(quorum={"minimum": 3, "deadline": "10m"}, retries=0).in_round(1)
    north = world.identity("north")
    world.becomes_ready(north)
    world.settle()
    world.passes(minutes=9)
    world.is_queued(north)
    world.settle()
    assert world.participant("north").state == "Invited"
    world.passes(hours=2)
    world.becomes_ready(north)
    world.settle()
    seen = world.participant("north")
    assert (seen.state, seen.attempt, seen.failures) == ("Running", north.attempt, 0)
    world.passes(minutes=9)
    world.settle()
    assert world.participant("north").state == "Running"
    world.succeeds(north)
    world.settle()
    assert world.participant("north").state == "Reported"
