"""Jobs, pods and events as the API server serves them, read into values."""

from datetime import timedelta

import pytest
from listed import a_condition, a_job, a_pod, by_policy
from world import START

from fedoperator.rounds.observed import (
    ChildState,
    Failure,
    child,
    lost_at,
    wants_pods,
    with_its_nodes,
)
from fedtrain.contract import Message

DISRUPTED = a_condition(
    "Failed",
    "PodFailurePolicy",
    "Pod ns/p has condition DisruptionTarget matching FailJob rule at index 0",
)


def test_a_job_without_our_labels_is_not_ours():
    assert child(a_job(labels={"app": "x"})) is None
    assert child(a_job(labels={"fedtrain.dev/role": "thief", "fedtrain.dev/round": "1"})) is None


def a_job_of(role, *conditions, **given):
    labels = {"fedtrain.dev/role": role, "fedtrain.dev/round": "3", "fedtrain.dev/attempt": "1"}
    return a_job(*conditions, labels=labels, **given)


def test_a_job_was_over_at_the_first_word_of_its_end():
    first = a_condition("SuccessCriteriaMet") | {"lastTransitionTime": "2026-01-01T00:01:00Z"}
    last = a_condition("Complete") | {"lastTransitionTime": "2026-01-01T00:02:00Z"}
    assert child(a_job_of("train", first, last)).ended_at.minute == 1
    assert child(a_job_of("train")).ended_at is None


def test_of_several_shards_the_first_ones_word_counts_whoever_ends_first():
    whole = Message(result={"digest": "sha256:0", "verdicts": "..."}).encode().decode()
    part = Message(result={"bytes": 7}).encode().decode()
    pods = [a_pod(0, part, index=1, at=1), a_pod(0, whole, index=0, at=9)]
    found = child(a_job_of("aggregate", a_condition("Complete"), nodes=2), pods)
    assert found.result == {"digest": "sha256:0", "verdicts": "..."}
    assert found.nodes == 2


def test_shards_that_say_nothing_do_not_hide_the_one_that_does():
    whole, empty = (Message(result=r).encode().decode() for r in ({"digest": "sha256:0"}, {}))
    pods = [a_pod(0, empty, index=n, at=n) for n in (1, 2)] + [a_pod(0, whole, index=0, at=9)]
    found = child(a_job_of("aggregate", a_condition("Complete"), nodes=3), pods)
    assert found.result == {"digest": "sha256:0"}


def test_of_several_shards_the_guilty_ones_word_counts():
    rejected = Message(reason="TooFewAccepted", result={"verdicts": ".N"}).encode().decode()
    told = Message(reason="Terminated").encode().decode()
    pods = [a_pod(75, told, index=0, at=3), a_pod(66, rejected, index=1, at=3)]
    found = child(a_job_of("aggregate", by_policy(66, 1), nodes=2), pods)
    assert (found.failure, found.trouble.reason) == (Failure.VERDICTS, "TooFewAccepted")
    assert found.result == {"verdicts": ".N"}


def test_within_one_second_who_was_told_to_stop_is_not_the_guilty_one():
    job = a_job_of("aggregate", a_condition("Failed", "BackoffLimitExceeded"), nodes=2)
    told = Message(reason="Terminated").encode().decode()
    pods = [a_pod(75, told, index=0, at=3), a_pod(137, reason="OOMKilled", index=1, at=3)]
    trouble = child(job, pods).trouble
    assert trouble.reason == "OOMKilled"
    assert "raise aggregation.resources.limits.memory" in trouble.message


def test_a_shard_that_is_done_before_another_begins_does_not_make_the_job_late():
    job = a_job_of("aggregate", ready=1, nodes=2)
    job["status"]["succeeded"] = 1
    assert child(job).state is ChildState.READY
    assert not wants_pods(job, START + timedelta(minutes=5))


def test_a_job_is_ready_when_all_its_pods_are():
    assert child(a_job(ready=1, nodes=2)).state is ChildState.PENDING
    assert child(a_job(ready=2, nodes=2)).state is ChildState.READY


@pytest.mark.parametrize("kind", ["SuccessCriteriaMet", "Complete"])
def test_a_job_has_succeeded_at_the_first_word_of_it(kind):
    message = Message(result={"samples": 7}).encode().decode()
    found = child(a_job(a_condition(kind)), [a_pod(0, message)])
    assert (found.state, found.result) == (ChildState.SUCCEEDED, {"samples": 7})


def test_a_complete_job_without_pods_is_a_success_without_a_result():
    assert child(a_job(a_condition("Complete"))).result is None


def test_a_disruption_is_free():
    found = child(a_job(DISRUPTED))
    assert (found.state, found.failure, found.trouble.reason) == (
        ChildState.FAILED,
        Failure.FREE,
        "Disrupted",
    )


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (64, Failure.CONTRACT),
        (65, Failure.DATA),
        (66, Failure.VERDICTS),
        (74, Failure.FREE),
        (75, Failure.COUNTED),
    ],
)
def test_the_class_is_read_off_the_jobs_condition_that_survives_its_pods(code, failure):
    assert child(a_job(by_policy(code, 1))).failure is failure


def test_the_guilty_pod_tells_why():
    message = Message(reason="ScriptFailed", message="ValueError: no").encode().decode()
    pods = [a_pod(0), a_pod(143), a_pod(75, message)]
    found = child(a_job(by_policy(75, 2)), pods)
    assert (found.trouble.reason, found.trouble.message) == ("ScriptFailed", "ValueError: no")


def test_running_out_of_memory_is_counted_and_named_with_its_remedy():
    job = a_job(a_condition("Failed", "BackoffLimitExceeded", "Job has reached the limit"))
    found = child(job, [a_pod(137, reason="OOMKilled")])
    assert (found.failure, found.trouble.reason) == (Failure.COUNTED, "OOMKilled")
    assert "trainer.resources.limits.memory" in found.trouble.message


def test_the_first_to_fail_is_guilty_whatever_its_peers_say_later():
    job = a_job(a_condition("Failed", "BackoffLimitExceeded", "Job has reached the limit"))
    told = Message(reason="Terminated", message="stopped by SIGTERM").encode().decode()
    first, later = a_pod(137, reason="OOMKilled", at=1), a_pod(75, told, at=9)
    assert child(job, [later, first]).trouble.reason == "OOMKilled"


def test_the_backstop_is_charged_to_nobody():
    """It counts time in a queue too."""
    found = child(a_job(a_condition("Failed", "DeadlineExceeded", "active longer than")))
    assert (found.failure, found.trouble.reason) == (Failure.FREE, "DeadlineExceeded")


def a_failed_pod(reason, message, code=None):
    pod = a_pod(code)
    pod["status"] |= {"phase": "Failed", "reason": reason, "message": message}
    return pod


OVER = a_condition("Failed", "BackoffLimitExceeded", "Job has reached the limit")


@pytest.mark.parametrize("condition", [OVER, by_policy(75, 2)])
def test_an_eviction_for_a_limit_of_its_own_is_counted(condition):
    """The kubelet sets no DisruptionTarget then (eviction_manager.go), as it does for a node's."""
    text = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". '
    told = Message(reason="Terminated", message="stopped by SIGTERM").encode().decode()
    pod = a_failed_pod("Evicted", text, 75)
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = told
    found = child(a_job(condition), [pod])
    assert (found.failure, found.trouble.reason) == (Failure.COUNTED, "Evicted")
    assert found.trouble.message == (
        'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi"; write less, or raise that '
        "limit of trainer"
    )


def test_a_node_that_refuses_a_pod_is_nobodys_fault():
    text = "Pod was rejected: Allocate failed due to no healthy devices present"
    found = child(a_job(OVER), [a_failed_pod("UnexpectedAdmissionError", text)])
    assert (found.failure, found.trouble.reason) == (Failure.FREE, "PodRejected")
    assert found.trouble.message == f"UnexpectedAdmissionError: {text}"


def test_a_broken_contract_stays_one_whatever_befalls_the_other_pods():
    pods = [a_pod(64), a_failed_pod("Evicted", "over the limit", 75)]
    assert child(a_job(by_policy(64, 1), nodes=2), pods).failure is Failure.CONTRACT


def a_terminating_pod(due, phase="Running"):
    pod = a_pod()
    pod["metadata"] |= {"name": "p-0-x", "deletionTimestamp": due}
    return pod | {"spec": {"nodeName": "n1"}, "status": {"phase": phase}}


def test_a_pod_that_never_ends_is_on_a_lost_node_and_that_is_free():
    """Its Job says nothing for as long as the node does not answer."""
    job, pod = a_job(), a_terminating_pod("2026-01-01T00:10:00Z")
    waits = with_its_nodes(child(job), [pod], START + timedelta(minutes=11, seconds=59))
    assert (waits.state, waits.trouble) == (ChildState.PENDING, None)
    lost = with_its_nodes(child(job), [pod], START + timedelta(minutes=12))
    assert (lost.state, lost.failure, lost.trouble.reason) == (
        ChildState.FAILED,
        Failure.FREE,
        "NodeLost",
    )
    assert lost.trouble.message == (
        "pod p-0-x was to end by 2026-01-01T00:10:00Z, and its node n1 does not answer"
    )


def test_a_pod_that_has_ended_is_on_no_lost_node():
    pod = a_terminating_pod("2026-01-01T00:10:00Z", phase="Failed")
    assert with_its_nodes(child(a_job()), [pod], START + timedelta(hours=1)).failure is None
    done = child(a_job(a_condition("Complete")))
    pod = a_terminating_pod("2026-01-01T00:10:00Z")
    assert with_its_nodes(done, [pod], START + timedelta(hours=1)) == done


def test_an_image_that_cannot_be_pulled_is_named():
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    found = child(a_job(), [a_pod(waiting=waiting)])
    assert found.trouble.reason == "ImagePullFailed"
    assert "'digits:1'" in found.trouble.message


def test_a_missing_claim_is_named():
    text = '0/1 nodes are available: persistentvolumeclaim "a-data" not found.'
    found = child(a_job(), [a_pod(unscheduled=text)])
    assert found.trouble.reason == "ClaimMissing"
    assert found.trouble.message == "PersistentVolumeClaim 'a-data' does not exist; create it"


def test_a_refused_pod_is_known_from_the_jobs_events_only():
    event = {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota"}
    found = child(a_job(), [], [event])
    assert (found.trouble.reason, found.trouble.message) == ("FailedCreate", "exceeded quota")


def test_pods_are_asked_for_only_when_a_job_alone_does_not_tell_enough():
    early, late = START + timedelta(seconds=29), START + timedelta(seconds=30)
    assert not wants_pods(a_job(), early)
    assert wants_pods(a_job(), late)
    assert not wants_pods(a_job(ready=1), late)
    assert wants_pods(a_job(a_condition("Complete")), early)


def test_a_foreign_termination_message_is_no_message_of_ours():
    for text in ("", "Traceback ...", "[1]", '{"a": 1}', '{"reason": 5}', "[" * 100000):
        assert Message.decode(text) is None


def test_half_a_surrogate_pair_in_a_message_becomes_a_question_mark():
    message = Message.decode(r'{"reason":"Odd","message":"a\ud800b","result":{"x":"\udfff"}}')
    assert message is not None
    assert (message.message, message.result) == ("a?b", {"x": "?"})


def test_a_message_always_fits_the_kubelet():
    big = {"details": {"north": "x" * 5000}, "samples": 1}
    data = Message(reason="R", message="é" * 5000, result=big).encode()
    assert len(data) <= 3072
    assert Message.decode(data.decode()).result == {"samples": 1}


def test_a_pod_that_was_to_end_counts_as_lost_two_minutes_later_of_which_no_event_tells():
    going, gone, here = a_pod(), a_pod(), a_pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:10Z"
    gone["status"]["phase"] = "Failed"
    assert lost_at([here, gone]) is None
    assert lost_at([here, gone, going]) == START + timedelta(minutes=3)


def test_a_scheduler_that_nobody_runs_is_named():
    """Such a pod has no condition, and no event tells of it; found by `tests.api.lived`."""
    silent = a_pod()
    silent["metadata"]["name"] = "digits-train-3-north-1-0-x7"
    silent["spec"] = {"schedulerName": "mine"}
    trouble = child(a_job(), [silent]).trouble
    assert trouble.reason == "NoScheduler"
    assert "digits-train-3-north-1-0-x7; is there one named 'mine'?" in trouble.message
    silent["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    assert child(a_job(), [silent]).trouble is None


@pytest.mark.parametrize("index", ["²", "9" * 5000, "-1", "", "0x1"])
def test_an_index_that_somebody_wrote_by_hand_is_none(index):
    """Who may edit pods may write any annotation, and a look must not end there."""
    told = Message(result={"digest": "sha256:0"}).encode().decode()
    pods = [a_pod(0, "", index=index), a_pod(0, told, index=1)]
    found = child(a_job_of("aggregate", a_condition("Complete"), nodes=2), pods)
    assert found.result == {"digest": "sha256:0"}
