"""Looks at trainings on a real API server; the test plays user, Job controller and kubelet."""

import pytest

from fedoperator import errors
from tests.cluster.stage import NAME, Died, a_training

pytestmark = pytest.mark.apiserver


async def test_the_first_look_makes_record_status_claim_and_the_preparing_job(stage):
    training = await stage.apply(a_training())
    await stage.look()
    (record,) = await stage.records()
    (job,) = (await stage.jobs()).values()
    owner = {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "name": NAME,
        "uid": training["metadata"]["uid"],
        "controller": True,
    }
    assert record["metadata"]["ownerReferences"] == [owner]
    assert job["metadata"]["ownerReferences"] == [owner]
    assert job["metadata"]["name"] == "digits-prepare-0-1"
    assert record["status"]["phase"] == "Preparing"
    assert (await stage.status())["phase"] == "Pending"
    claim = await stage.api.request("GET", stage.path("persistentvolumeclaims", "digits-exchange"))
    assert "ownerReferences" not in claim["metadata"]


async def test_an_idle_operator_writes_nothing(stage):
    await stage.apply(a_training())
    await stage.settle()
    before = (await stage.training())["metadata"]["resourceVersion"]
    writes = stage.writes
    for seconds in (1, 29, 31, 3600):
        stage.later(seconds=seconds)
        await stage.look()
    stage.restart()
    await stage.look()
    assert stage.writes == writes
    assert (await stage.training())["metadata"]["resourceVersion"] == before


async def test_a_whole_training_runs_to_its_end(stage):
    await stage.apply(a_training(evaluation={"by": "north"}))
    await stage.settle()
    for _ in range(12):
        await stage.work_off()
        await stage.settle()
    status = await stage.status()
    assert status["phase"] == "Succeeded", status
    assert status["globalModel"]["round"] == 2
    assert status["metrics"] == {"accuracy": 0.9}
    assert [r["status"]["phase"] for r in await stage.records()] == ["Published"] * 3
    assert [p["weight"] for p in (await stage.records())[2]["status"]["participants"]] == [0.5] * 2
    told = {reason for reason, _ in await stage.events()}
    assert {"RoundStarted", "RoundPublished", "Evaluated", "Succeeded"} <= told
    text = stage.telemetry.render().decode()
    assert 'fedtrain_global_metric{metric="accuracy"' in text
    assert "fedtrain_participant_samples" in text


async def _to_the_end(stage, rounds):
    for _ in range(2 * rounds + 5):
        await stage.settle()
        await stage.work_off()
    assert (await stage.status())["phase"] == "Succeeded"


async def _rounds_kept(stage):
    return [r["spec"]["round"] for r in await stage.records()]


async def test_the_records_beyond_the_history_go_as_rounds_begin(stage):
    await stage.apply(a_training(rounds=5, history=3))
    await _to_the_end(stage, 5)
    assert await _rounds_kept(stage) == [3, 4, 5]


async def test_a_shortened_history_lets_go_of_everything_beyond_it(stage):
    await stage.apply(a_training(rounds=6, history=9))
    while (await stage.status()).get("round", 0) < 5:
        await stage.settle()
        await stage.work_off()
    assert await _rounds_kept(stage) == [0, 1, 2, 3, 4, 5]
    await stage.edit(history=2)
    await _to_the_end(stage, 2)
    assert await _rounds_kept(stage) == [5, 6]


async def test_after_a_restart_records_are_asked_for_once_and_left_ones_go(stage):
    await stage.apply(a_training(rounds=3, history=2))
    await _to_the_end(stage, 3)
    left = {**(await stage.records())[0], "status": {}}
    left["metadata"] = {**left["metadata"], "name": "digits-00001", "resourceVersion": ""}
    left["spec"] = {**left["spec"], "round": 1}
    await stage.api.request("POST", stage.path("federatedrounds"), left)
    await stage.settle()
    assert await _rounds_kept(stage) == [1, 2, 3], "it knows that it has done this"
    stage.restart()
    await stage.settle()
    assert await _rounds_kept(stage) == [2, 3]
    asked = stage.requests[f"GET {stage.path('federatedrounds')}"]
    await stage.settle()
    assert stage.requests[f"GET {stage.path('federatedrounds')}"] == asked


async def test_an_old_record_of_somebody_else_is_left_alone(stage):
    await stage.apply(a_training(rounds=5, history=2))
    await stage.settle()
    mine = (await stage.records())[0]["metadata"]
    foreign = {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedRound",
        "metadata": {"name": "letters-00000", "labels": mine["labels"]},
        "spec": {"training": "letters", "round": 0, "invited": ["north"]},
    }
    await stage.api.request("POST", stage.path("federatedrounds"), foreign)
    await _to_the_end(stage, 5)
    assert [r["metadata"]["name"] for r in await stage.records()] == [
        "digits-00004",
        "digits-00005",
        "letters-00000",
    ]


@pytest.mark.parametrize("label", ["fedtrain.dev/role", "fedtrain.dev/training"])
async def test_a_job_whose_labels_somebody_changed_is_named_and_made_again_once_it_is_gone(
    stage, label
):
    """No list has it any more, or no look can tell what it is: it would be waited for for ever."""
    await stage.apply(a_training())
    await stage.settle()
    job = (await stage.jobs())["digits-prepare-0-1"]
    job["metadata"]["labels"][label] = "another"
    await stage.api.request("PUT", stage.path("jobs", "digits-prepare-0-1"), job)
    assert (await stage.look()).wake_at is not None
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "NameTaken")
    assert status["message"] == (
        "the labels of Job 'digits-prepare-0-1' were changed, so that it is not found; "
        "delete it, and it is made again"
    )
    await stage.delete("jobs", "digits-prepare-0-1")
    stage.later(minutes=1)
    await stage.settle()
    assert (await stage.status())["phase"] == "Pending"
    assert "digits-prepare-0-1" in await stage.jobs()


async def test_a_record_by_hand_of_another_round_than_its_name_says_is_somebody_elses(stage):
    """Taken at its word, a training would go on with round 2^53, and let go of all before it."""
    training = await stage.apply(a_training())
    owner = {"apiVersion": "fedtrain.dev/v1alpha1", "kind": "FederatedTraining", "name": NAME}
    owner |= {"uid": training["metadata"]["uid"], "controller": True}
    record = {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedRound",
        "metadata": {"name": "digits-00000", "ownerReferences": [owner]},
        "spec": {"training": NAME, "round": 2**53 - 1, "invited": ["north"]},
    }
    await stage.api.request("POST", stage.path("federatedrounds"), record)
    with pytest.raises(errors.NameTaken, match="digits-00000"):
        await stage.look()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "NameTaken")
    assert status.get("round", 0) == 0


async def test_a_claim_of_somebody_else_blocks_before_anything_runs_on_it(stage):
    foreign = {
        "metadata": {"name": "digits-exchange"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await stage.api.request("POST", stage.path("persistentvolumeclaims"), foreign)
    await stage.apply(a_training())
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "NameTaken")
    assert "'digits-exchange'" in status["message"]
    assert not await stage.jobs()
    await stage.delete("persistentvolumeclaims", "digits-exchange")
    claim = await stage.api.request("GET", stage.path("persistentvolumeclaims", "digits-exchange"))
    claim["metadata"]["finalizers"] = []  # No controller is there to take it off.
    await stage.api.request("PUT", stage.path("persistentvolumeclaims", "digits-exchange"), claim)
    stage.later(minutes=2)
    await stage.settle()
    assert await stage.jobs()


async def test_a_result_that_got_lost_costs_a_participant_nothing(stage):
    await stage.apply(a_training(rounds=1))
    await stage.settle()
    for _ in range(2):
        await stage.work_off()
        await stage.settle()
    await stage.succeed("digits-train-1-north-1", None)
    await stage.succeed("digits-train-1-south-1", None)
    await stage.settle()
    assert "digits-aggregate-1-1" in await stage.jobs()


async def test_a_failed_attempt_is_told_and_tried_again(stage):
    await stage.apply(a_training(rounds=1))
    await stage.settle()
    for _ in range(2):
        await stage.work_off()
        await stage.settle()
    await stage.fail("digits-train-1-north-1", 75, "LossIsNaN", "the loss is not a number")
    await stage.settle()
    north = (await stage.records())[1]["status"]["participants"][0]
    assert (north["state"], north["reason"]) == ("Retrying", "LossIsNaN")
    assert any("the loss is not a number" in text for _, text in await stage.events())
    stage.later(minutes=10)
    await stage.settle()
    assert "digits-train-1-north-2" in await stage.jobs()


async def test_a_name_taken_by_somebody_else_blocks_and_is_tried_again(stage):
    foreign = {
        "metadata": {"name": "digits-prepare-0-1"},
        "spec": {
            "template": {
                "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
            }
        },
    }
    await stage.api.request("POST", stage.path("jobs"), foreign)
    await stage.apply(a_training())
    asked = await stage.look()
    assert asked.wake_at is not None
    assert asked.wake_at <= stage.clock()
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "NameTaken")
    assert "digits-prepare-0-1" in status["message"]
    (job,) = (await stage.jobs()).values()
    assert "ownerReferences" not in job["metadata"]
    await stage.delete("jobs", "digits-prepare-0-1")
    stage.later(minutes=2)
    await stage.settle()
    (job,) = (await stage.jobs()).values()
    assert job["metadata"]["ownerReferences"][0]["name"] == NAME


async def test_a_round_of_somebody_else_blocks(stage):
    await stage.apply(a_training())
    foreign = {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedRound",
        "metadata": {"name": "digits-00000"},
        "spec": {"training": "digits", "round": 0, "invited": ["north"]},
    }
    await stage.api.request("POST", stage.path("federatedrounds"), foreign)
    for _ in range(2):
        with pytest.raises(errors.NameTaken):
            await stage.look()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "NameTaken")
    assert not await stage.jobs()


async def test_a_full_quota_is_told_in_the_words_of_the_api_server(stage):
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    await stage.api.request("POST", stage.path("resourcequotas"), quota)
    made = await stage.api.request("GET", stage.path("resourcequotas", "none"))
    made["status"] = {"hard": {"count/jobs.batch": "0"}, "used": {"count/jobs.batch": "0"}}
    await stage.api.request("PUT", stage.path("resourcequotas", "none", "status"), made)
    await stage.apply(a_training())
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "Refused")
    assert "exceeded quota" in status["message"]


async def test_what_a_quota_leaves_no_room_for_is_told_and_made_once_there_is(stage):
    await stage.apply(a_training([f"site-{n:02}" for n in range(14)], rounds=1))
    await stage.settle()
    await stage.work_off()
    await stage.settle()
    quota = {"metadata": {"name": "tight"}, "spec": {"hard": {"count/jobs.batch": "5"}}}
    await stage.api.request("POST", stage.path("resourcequotas"), quota)
    made = await stage.api.request("GET", stage.path("resourcequotas", "tight"))
    made["status"] = {"hard": {"count/jobs.batch": "5"}, "used": {"count/jobs.batch": "2"}}
    await stage.api.request("PUT", stage.path("resourcequotas", "tight", "status"), made)
    await stage.work_off()
    asked = await stage.look()
    assert len(await stage.jobs()) == 5
    assert asked.wake_at is not None
    assert asked.wake_at <= stage.clock(), "what is news is told at the next look"
    await stage.settle()
    waiting = (await stage.records())[1]["status"]["participants"]
    assert [p.get("reason") for p in waiting].count("Refused") == 11
    assert (await stage.status())["phase"] == "Blocked"
    await stage.delete("resourcequotas", "tight")
    stage.later(minutes=2)
    await stage.settle()
    trained = [name for name in await stage.jobs() if name.startswith("digits-train")]
    assert len(trained) == 14
    for name in trained:
        if not (await stage.jobs())[name].get("status", {}).get("conditions"):
            await stage.ready(name)
    await stage.settle()
    assert (await stage.status())["phase"] == "Training"


async def test_a_training_that_changed_since_it_was_read_gets_no_write(stage, monkeypatch):
    await stage.apply(a_training())
    read = stage.reconciler._cluster.training

    async def read_then_edited(namespace, name):
        found = await read(namespace, name)
        await stage.edit(retries=found["spec"]["retries"] + 1 if "retries" in found["spec"] else 3)
        return found

    monkeypatch.setattr(stage.reconciler._cluster, "training", read_then_edited)
    with pytest.raises(errors.Conflict):
        await stage.look()
    assert "status" not in await stage.training()
    assert not await stage.jobs()


async def test_a_spec_of_a_newer_version_blocks_with_the_field_and_a_remedy(stage, monkeypatch):
    await stage.apply(a_training())
    await stage.settle()
    read = stage.reconciler._cluster.training

    async def read_newer(namespace, name):
        found = await read(namespace, name)
        found["spec"] |= {"qourum": {"minimum": 1}}
        return found

    with monkeypatch.context() as newer:
        newer.setattr(stage.reconciler._cluster, "training", read_newer)
        await stage.settle()
        status = await stage.status()
        assert (status["phase"], status["reason"]) == ("Blocked", "InvalidSpec")
        assert status["message"] == "spec.qourum: no such field; did you mean quorum?"
        blocked = {c["type"]: c for c in status["conditions"]}["Blocked"]
        assert (blocked["status"], blocked["message"]) == ("True", status["message"])
        assert b'phase="Blocked",training="digits"} 1.0' in stage.telemetry.render()
        writes = stage.writes
        stage.later(hours=1)
        await stage.look()
        assert stage.writes == writes
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Pending", "")


async def test_before_acting_on_an_unchanged_status_the_training_is_read_again(stage, monkeypatch):
    await stage.apply(a_training())
    stage.dies_after = 3  # Record, its status, the training's status; no Job.
    with pytest.raises(Died):
        await stage.look()
    stage.dies_after = None
    stage.restart()
    read = stage.reconciler._cluster.training
    edits = iter([True])

    async def read_then_edited(namespace, name):
        found = await read(namespace, name)
        if next(edits, False):
            await stage.edit(suspend=True)
        return found

    monkeypatch.setattr(stage.reconciler._cluster, "training", read_then_edited)
    with pytest.raises(errors.Conflict):
        await stage.look()
    assert not await stage.jobs()
    await stage.settle()
    assert not await stage.jobs()
    assert (await stage.status())["phase"] == "Suspended"


async def test_without_the_lease_nothing_is_written(stage):
    await stage.apply(a_training())
    stage.leads = False
    with pytest.raises(errors.NotLeading):
        await stage.look()
    assert stage.writes == 0


async def test_a_deleted_training_is_forgotten(stage):
    await stage.apply(a_training())
    await stage.settle()
    assert b'training="digits"' in stage.telemetry.render()
    await stage.delete("federatedtrainings", NAME)
    writes = stage.writes
    assert (await stage.look()).gone
    assert stage.writes == writes
    assert b'training="digits"' not in stage.telemetry.render()


async def test_a_training_that_waits_for_its_children_to_go_gets_no_write(stage):
    await stage.apply(a_training())
    await stage.settle()
    training = await stage.training()
    training["metadata"]["finalizers"] = ["example.com/wait"]
    await stage.api.request("PUT", stage.path("federatedtrainings", NAME), training)
    await stage.delete("federatedtrainings", NAME)
    writes = stage.writes
    assert not (await stage.look()).gone
    assert stage.writes == writes


async def test_a_training_made_again_has_nothing_to_do_with_the_jobs_of_the_old_one(stage):
    """Nobody collects garbage here, so the old ones stand in the way: that is told, too."""
    await stage.apply(a_training())
    await stage.settle()
    await stage.delete("federatedtrainings", NAME)
    await stage.apply(a_training())
    with pytest.raises(errors.NameTaken):
        await stage.look()
    for record in await stage.records():
        await stage.delete("federatedrounds", record["metadata"]["name"])
    await stage.settle()
    assert (await stage.status())["reason"] == "NameTaken"


async def test_a_record_without_its_status_is_filled_in(stage):
    await stage.apply(a_training())
    stage.dies_after = 1
    with pytest.raises(Died):
        await stage.look()
    (record,) = await stage.records()
    assert "status" not in record
    stage.dies_after = None
    stage.restart()
    await stage.settle()
    assert (await stage.records())[0]["status"]["phase"] == "Preparing"
    assert "digits-prepare-0-1" in await stage.jobs()


async def test_an_operator_that_dies_after_any_write_loses_and_repeats_nothing(stage):
    """Restarted at every write of a whole training, which then looks as if nothing had been."""
    await stage.apply(a_training(rounds=1, evaluation={"by": "Participants"}))
    deaths = 0
    for _ in range(80):
        stage.dies_after = stage.writes + 1
        try:
            await stage.look()
        except Died:
            deaths += 1
            stage.restart()
            continue
        except errors.Conflict:
            continue
        finally:
            stage.dies_after = None
        if not await stage.work_off():
            status = await stage.status()
            if status["phase"] == "Succeeded":
                break
    assert deaths > 8
    assert (await stage.status())["phase"] == "Succeeded"
    attempts = [
        assignment["attempt"]
        for record in await stage.records()
        for assignment in [
            *record["status"].get("participants", []),
            *record["status"].get("evaluation", []),
        ]
    ]
    assert attempts == [1] * 4


async def test_why_a_pod_cannot_start_is_found_out_after_a_while(stage):
    await stage.apply(a_training())
    await stage.settle()
    job = (await stage.jobs())["digits-prepare-0-1"]
    event = {
        "metadata": {"name": "e1", "namespace": stage.namespace},
        "involvedObject": {
            "kind": "Job",
            "namespace": stage.namespace,
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
        },
        "type": "Warning",
        "reason": "FailedCreate",
        "message": "pods are forbidden: exceeded quota: team",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    await stage.api.request("POST", stage.path("events"), event)
    asked = await stage.look()
    assert asked.wake_at is not None
    assert (await stage.status())["phase"] == "Pending"
    stage.later(seconds=31)
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "FailedCreate")
    assert "exceeded quota: team" in status["message"]


async def test_pods_are_asked_for_only_when_a_job_does_not_tell_enough(stage):
    await stage.apply(a_training())
    await stage.settle()
    await stage.look()
    assert not [request for request in stage.requests if request.endswith("/pods")]
    await stage.work_off()
    await stage.look()
    assert len([request for request in stage.requests if request.endswith("/pods")]) == 1


async def test_a_bug_is_shown_where_the_user_looks_and_goes_with_its_cause(stage, monkeypatch):
    await stage.apply(a_training())
    await stage.settle()

    def broken(*_):
        raise OverflowError("int too large to convert to float")

    with monkeypatch.context() as bug:
        bug.setattr("fedoperator.cluster.reconcile.decide", broken)
        with pytest.raises(OverflowError):
            await stage.look()
        status = await stage.status()
        assert (status["phase"], status["reason"]) == ("Blocked", "InternalError")
        assert "OverflowError" in status["message"]
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Pending", "")


async def test_parameters_that_no_container_can_be_given_block_in_one_sentence(stage):
    training = a_training()
    training["spec"]["parameters"] = {"text": "x" * 40_000}
    await stage.apply(training)
    await stage.settle()
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "InvalidSpec")
    assert status["message"].startswith("spec.parameters: ")
    assert not await stage.jobs()


async def test_a_job_that_the_list_does_not_show_does_not_keep_the_operator_busy(stage):
    """Somebody took its label away: it is there, and ours, and cannot be made again."""
    await stage.apply(a_training())
    await stage.settle()
    (name,) = await stage.jobs()
    path = stage.path("jobs", name)
    job = await stage.api.request("GET", path)
    del job["metadata"]["labels"]["fedtrain.dev/training"]
    await stage.api.request("PUT", path, job)
    await stage.look()  # learns it, and wants to be asked again at once
    await stage.settle()
    assert (await stage.status())["reason"] == "NameTaken"
    writes = stage.writes
    asked = await stage.look()
    assert stage.writes == writes
    assert asked.wake_at is not None
    assert asked.wake_at > stage.clock()
