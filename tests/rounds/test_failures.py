"""Failures are values in classes: free, counted, fatal; and what each costs."""

import pytest
from world import a_world

from fedoperator.rounds.observed import Failure, Trouble
from fedtrain.contract import Role


def test_a_counted_failure_is_tried_again_after_a_back_off():
    world = a_world().in_round(1)
    world.fails(world.identity("north"))
    world.settle()
    north = world.participant("north")
    assert (north.state, north.failures, north.last_failure) == (
        "Retrying",
        1,
        "ScriptFailed: it went wrong",
    )
    assert world.last_plan.wake_at == north.not_before
    world.passes(seconds=3)
    world.settle()
    assert world.identity("north").attempt == 2


def test_the_retries_of_one_round_run_out():
    world = a_world(retries=2).in_round(1)
    for attempt in (1, 2, 3):
        assert world.identity("north").attempt == attempt
        world.fails(world.identity("north"))
        world.settle()
        world.passes(minutes=1)
        world.settle()
    assert (world.participant("north").state, world.participant("north").failures) == ("Failed", 3)


def test_the_next_round_begins_with_new_retries():
    world = a_world(retries=0).in_round(1)
    world.fails(world.identity("north"))
    world.settle().in_round(2)
    assert (world.participant("north").state, world.participant("north").failures) == ("Invited", 0)


@pytest.mark.parametrize("reason", ["Disrupted", "ExchangeFull"])
def test_a_free_failure_is_charged_to_nobody(reason):
    world = a_world(retries=0).in_round(1)
    for _ in range(5):
        world.fails(world.identity("north"), Failure.FREE, reason)
        world.settle()
        world.passes(minutes=6)
        world.settle()
    north = world.participant("north")
    assert (north.state, north.attempt, north.failures) == ("Invited", 6, 0)


@pytest.mark.parametrize("failure", [Failure.CONTRACT, Failure.DATA])
def test_a_fatal_failure_is_not_tried_again(failure):
    world = a_world().in_round(1)
    world.fails(world.identity("north"), failure)
    world.settle()
    assert world.participant("north").state == "Failed"


def test_a_script_that_breaks_the_contract_in_init_fails_the_training():
    world = a_world().settle().all_succeed()
    world.fails(world.identity("north", Role.INIT), Failure.CONTRACT, "NoRounds")
    world.settle()
    status = world.training.status
    assert (status.phase, status.reason) == ("Failed", "NoRounds")
    assert status.message == "participant north: it went wrong"


def test_an_init_that_fails_blocks_and_is_tried_again():
    world = a_world().settle().all_succeed()
    world.fails(world.identity("north", Role.INIT))
    world.settle()
    assert (world.training.status.phase, world.training.status.reason) == (
        "Blocked",
        "ScriptFailed",
    )
    world.passes(minutes=1)
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_an_exchange_that_cannot_be_written_blocks_with_its_reason():
    world = a_world().settle()
    world.fails(world.live()[0], Failure.FREE, "ExchangeNotWritable")
    world.settle()
    assert world.training.status.reason == "ExchangeNotWritable"


def test_an_aggregation_that_keeps_failing_costs_no_participant_anything():
    world = a_world(retries=0).in_round(1)
    world.all_succeed(Role.TRAIN)
    for _ in range(4):
        world.fails(world.live(Role.AGGREGATE)[0], reason="MemoryError")
        world.settle()
        assert world.training.status.phase == "Blocked"
        world.passes(minutes=6)
        world.settle()
    assert {p.state for p in world.record().status.participants} == {"Reported"}
    world.to_the_end()
    path = world.record(1).status.global_model.path
    assert path == "digits-1a2b3c4d/global/1/5/model.safetensors"


def test_an_update_that_fails_inspection_costs_its_participant_the_round():
    world = a_world().in_round(1)
    world.all_succeed(Role.TRAIN)
    verdicts = {"verdicts": ".a.", "reasons": {"a": "NotFinite"}, "details": {"north": "NaN in w"}}
    world.succeeds(world.live(Role.AGGREGATE)[0], **verdicts)
    world.settle()
    north = world.participant("north", 1)
    assert (north.state, north.reason, north.message) == ("Rejected", "NotFinite", "NaN in w")
    accepted = [p for p in world.record(1).status.participants if p.state == "Accepted"]
    assert sum(p.weight for p in accepted) == pytest.approx(1)
    assert north.weight is None
    assert any(e.reason == "NotFinite" for e in world.events)


def test_too_few_accepted_updates_miss_the_quorum_and_only_the_rejected_train_again():
    world = a_world(quorum={"minimum": 3}).in_round(1)
    world.all_succeed(Role.TRAIN)
    aggregator = world.live(Role.AGGREGATE)[0]
    verdicts = {"verdicts": ".a.", "reasons": {"a": "NotFinite"}}
    world.fails(aggregator, Failure.VERDICTS, "TooFewAccepted", **verdicts)
    world.settle()
    assert world.training.status.reason == "QuorumMissed"
    world.passes(minutes=1)
    world.settle()
    assert [(i.participant, i.attempt) for i in world.live(Role.TRAIN)] == [("north", 2)]
    world.to_the_end()
    assert world.training.status.phase == "Succeeded"
    candidates = world.record(1).status.candidates
    assert [(c.name, c.attempt) for c in candidates] == [("east", 1), ("north", 2), ("south", 1)]


def test_an_update_changed_after_inspection_is_left_out_of_the_next_aggregation():
    world = a_world(quorum={"minimum": 2}).in_round(1)
    world.all_succeed(Role.TRAIN)
    verdicts = {"verdicts": "a..", "reasons": {"a": "ChangedAfterInspection"}}
    world.fails(world.live(Role.AGGREGATE)[0], Failure.VERDICTS, "Changed", **verdicts)
    world.settle()
    assert [c.name for c in world.record(1).status.candidates] == ["north", "south"]
    assert world.live(Role.AGGREGATE)[0].attempt == 2


def test_verdicts_that_got_lost_are_asked_for_again():
    world = a_world().in_round(1)
    world.all_succeed(Role.TRAIN)
    world.fails(world.live(Role.AGGREGATE)[0], Failure.VERDICTS, "TooFewAccepted")
    world.settle()
    world.passes(minutes=1)
    world.settle()
    assert world.live(Role.AGGREGATE)[0].attempt == 2


def test_a_participant_complete_without_a_message_counts_and_is_filled_in_by_the_aggregation():
    world = a_world().in_round(1)
    for identity in world.live(Role.TRAIN):
        world.succeeds(identity, silent=identity.participant == "north")
    world.settle()
    assert world.participant("north").samples is None
    digest = "sha256:" + "1" * 64
    known = {"filled": {"north": {"samples": 30, "digest": digest}}}
    world.succeeds(world.live(Role.AGGREGATE)[0], **known)
    world.settle()
    north = world.participant("north", 1)
    assert (north.samples, north.digest, north.state) == (30, digest, "Accepted")


@pytest.mark.parametrize("role", [Role.INIT, Role.AGGREGATE, Role.EVALUATE])
def test_a_result_that_nothing_can_replace_is_made_again_if_it_got_lost(role):
    world = a_world(rounds=1, evaluation={"by": "north"}).settle()
    while not world.live(role):
        world.all_succeed()
    world.succeeds(world.live(role)[0], silent=True)
    world.settle()
    world.passes(minutes=1)
    world.settle()
    assert [i.attempt for i in world.live(role)] == [2]
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_a_job_deleted_by_hand_is_made_again_as_the_same_attempt():
    world = a_world().in_round(1)
    identity = world.identity("north")
    del world.jobs[identity]
    world.settle()
    assert world.identity("north") == identity
    assert world.participant("north").failures == 0


def test_a_record_deleted_by_hand_is_made_again():
    world = a_world().in_round(2)
    del world.records["digits-00002"]
    world.to_the_end()
    assert world.training.status.progress == "3/3"


def test_a_published_record_deleted_by_hand_does_not_repeat_its_round():
    world = a_world(rounds=2).in_round(2)
    del world.records["digits-00001"]
    world.to_the_end()
    assert [i.round for i in world.created if i.role is Role.AGGREGATE] == [1, 2]


def test_records_deleted_by_hand_at_the_very_end_begin_no_further_round():
    world = a_world(rounds=2, evaluation={"by": "north"}).in_round(2)
    world.all_succeed().all_succeed(Role.AGGREGATE)
    world.records.clear()
    world.to_the_end()
    assert world.training.status.global_model.round == 2
    assert max(i.round for i in world.created) == 2


def test_participants_that_cannot_start_block_the_round_with_their_reason():
    world = a_world().in_round(1)
    for identity in world.live(Role.TRAIN)[:2]:
        world.cannot_start(identity)
    world.settle()
    status = world.training.status
    assert (status.phase, status.reason) == ("Blocked", "ImagePullFailed")
    assert status.message == "participant east: it cannot start"
    for identity in world.live(Role.TRAIN):
        world.becomes_ready(identity)
    world.settle()
    assert (world.training.status.phase, world.training.status.reason) == ("Training", "")


def test_what_kept_a_child_from_starting_is_forgotten_when_it_is_over():
    world = a_world().settle()
    name = "digits-prepare-0-1"
    world.look(crash_after=0)
    world.jobs.clear()
    world.troubles = {name: Trouble(reason="Refused", message="exceeded quota")}
    world.look(crash_after=2)
    assert (world.training.status.phase, world.training.status.reason) == ("Blocked", "Refused")
    world.troubles = {}
    world.settle()
    assert (world.training.status.phase, world.training.status.reason) == ("Pending", "")


def test_lies_in_a_termination_message_do_no_harm():
    world = a_world().in_round(1)
    lies = {
        "samples": -5,
        "digest": "../../etc",
        "metrics": {"loss": float("nan"), "a b": 1, "x": "y"},
    }
    world.succeeds(world.identity("north"), **lies)
    world.settle()
    north = world.participant("north")
    assert (north.samples, north.digest, north.metrics) == (None, None, {})
