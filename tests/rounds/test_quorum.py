"""When a round closes, and what happens when too few report."""

from world import a_world

from fedoperator.rounds.observed import Failure
from fedtrain.contract import Role


def test_a_round_waits_for_everyone_while_they_may_still_report():
    world = a_world().in_round(1)
    world.succeeds(world.identity("north"))
    world.succeeds(world.identity("south"))
    world.settle()
    assert world.record().status.phase == "Training"


def test_a_round_closes_without_those_that_failed_if_the_quorum_reported():
    world = a_world(retries=0).in_round(1)
    world.fails(world.identity("north"))
    world.succeeds(world.identity("south"))
    world.succeeds(world.identity("east"))
    world.settle()
    assert [c.name for c in world.record().status.candidates] == ["east", "south"]
    assert [i.role for i in world.live()] == [Role.AGGREGATE]


def test_a_quorum_that_cannot_be_reached_is_missed_at_once_and_the_others_go_on():
    world = a_world(retries=0, quorum={"minimum": 3}).in_round(1)
    world.fails(world.identity("north"))
    world.settle()
    status = world.training.status
    assert (status.phase, status.reason) == ("Blocked", "QuorumMissed")
    assert "north: ScriptFailed" in status.message
    assert {i.participant for i in world.live()} == {"south", "east"}


def test_after_a_missed_quorum_what_was_reported_is_kept_and_the_rest_is_invited_again():
    world = a_world(retries=0, quorum={"minimum": 3}).in_round(1)
    world.fails(world.identity("north"))
    world.succeeds(world.identity("south"))
    world.settle()
    world.passes(minutes=1)
    world.settle()
    assert world.participant("south").state == "Reported"
    assert (world.participant("north").attempt, world.participant("north").failures) == (2, 0)
    world.to_the_end()
    assert world.training.status.phase == "Succeeded"
    assert len([i for i in world.created if i.participant == "south" and i.round == 1]) == 1


def test_a_change_of_the_spec_ends_the_back_off():
    world = a_world(retries=0, quorum={"minimum": 3}).in_round(1)
    world.fails(world.identity("north"))
    world.settle()
    assert world.participant("north").state == "Failed"
    world.edited(retries=1).settle()
    assert world.participant("north").attempt == 2


def test_a_lowered_quorum_closes_the_round():
    world = a_world(retries=0, quorum={"minimum": 3}).in_round(1)
    world.fails(world.identity("north"))
    world.succeeds(world.identity("south"))
    world.succeeds(world.identity("east"))
    world.settle()
    world.edited(quorum={"minimum": 2}).settle()
    assert world.record().status.phase == "Aggregating"


def test_on_miss_fail_ends_the_training():
    world = a_world(retries=0, quorum={"minimum": 3, "onMiss": "Fail"}).in_round(1)
    world.fails(world.identity("north"))
    world.settle()
    status = world.training.status
    assert (status.phase, status.reason) == ("Failed", "QuorumMissed")
    assert world.live() == []
    assert {p.state for p in world.record().status.participants} == {"Failed", "Dropped"}


def test_nothing_stays_open_when_a_training_ends():
    changes = {"retries": 0, "evaluation": {"by": "north"}}
    world = a_world(quorum={"minimum": 3, "onMiss": "Fail"}, **changes).in_round(2)
    assert world.live(Role.EVALUATE)
    world.fails(world.identity("south"))
    world.settle()
    assert world.training.status.phase == "Failed"
    assert world.record(1).status.evaluation[0].state == "Dropped"
    assert world.live() == []


def test_a_round_that_nobody_can_save_does_not_keep_the_operator_busy():
    world = a_world(2, retries=0).in_round(1)
    world.fails(world.identity("north"))
    world.settle()
    world.edited(participants=[{"name": "south"}]).settle()
    world.passes(minutes=10)
    plan = world.settle().look()
    assert plan.wake_at is None or plan.wake_at > world.now


def test_after_a_missed_quorum_others_are_invited_in_the_place_of_those_that_failed():
    """A site whose data are broken must not hold up a round while others stand idle."""
    chosen = {"fraction": 0.4, "minimum": 2}
    world = a_world(5, selection=chosen, quorum={"minimum": 2}).in_round(1)
    broken, other = world.live(Role.TRAIN)
    world.succeeds(other)
    world.fails(broken, Failure.DATA, "NotFinite")
    world.settle()
    assert world.training.status.reason == "QuorumMissed"
    world.passes(minutes=1)
    world.settle()
    live = {i.participant for i in world.live(Role.TRAIN)}
    assert broken.participant in live
    assert len(live) == 2
    (stranger,) = live - {broken.participant}
    world.fails(world.identity(broken.participant), Failure.DATA, "NotFinite")
    world.succeeds(world.identity(stranger))
    world.settle()
    names = sorted([stranger, other.participant])
    assert [c.name for c in world.record(1).status.candidates] == names


def test_newcomers_take_the_place_of_invited_ones_that_were_all_removed():
    world = a_world(2, quorum={"minimum": 1}).in_round(1)
    world.edited(participants=[{"name": "new-a"}, {"name": "new-b"}]).settle()
    world.to_the_end()
    assert world.training.status.phase == "Succeeded"
    accepted = [p.name for p in world.record(1).status.participants if p.state == "Accepted"]
    assert accepted
    assert set(accepted) <= {"new-a", "new-b"}


def test_one_wrong_command_does_not_fail_a_federation_in_which_others_are_left():
    world = a_world(3, selection={"fraction": 0.1}, quorum={"minimum": 1}).in_round(1)
    (only,) = world.live(Role.TRAIN)
    world.fails(only, Failure.CONTRACT, "CommandNotFound")
    world.settle()
    assert (world.training.status.phase, world.training.status.reason) == (
        "Blocked",
        "QuorumMissed",
    )
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_a_script_that_breaks_the_contract_everywhere_fails_the_training():
    world = a_world().in_round(1)
    for identity in world.live(Role.TRAIN):
        world.fails(identity, Failure.CONTRACT, "NoSubmit")
    world.settle()
    assert (world.training.status.phase, world.training.status.reason) == ("Failed", "NoSubmit")


def test_bad_data_of_one_participant_costs_that_participant_its_round_only():
    world = a_world().in_round(1)
    world.fails(world.identity("north"), Failure.DATA, "NotFinite")
    world.settle()
    assert world.participant("north").state == "Failed"
    world.to_the_end()
    assert world.training.status.phase == "Succeeded"


def test_removing_participants_below_the_quorum_blocks_and_names_the_remedy():
    world = a_world().in_round(1)
    world.edited(participants=[{"name": "south"}]).settle()
    status = world.training.status
    assert (status.phase, status.reason) == ("Blocked", "NotEnoughParticipants")
    assert "spec.quorum.minimum" in status.message
    assert {i.participant for i in world.live()} == {"south"}


def test_a_participant_removed_mid_round_is_dropped_and_the_round_goes_on():
    world = a_world().in_round(1)
    world.edited(participants=[{"name": "south"}, {"name": "east"}]).settle()
    assert world.participant("north").state == "Dropped"
    world.to_the_end()
    assert world.training.status.phase == "Succeeded"


def test_a_participant_added_mid_round_joins_at_the_next():
    world = a_world(2, rounds=2).in_round(1)
    names = [{"name": n} for n in ("north", "south", "late-comer")]
    world.edited(participants=names).settle()
    assert {i.participant for i in world.live()} == {"north", "south"}
    world.to_the_end()
    assert [p.name for p in world.record(2).status.participants] == ["late-comer", "north", "south"]


def test_a_newcomer_whose_folder_is_not_made_yet_does_not_keep_the_operator_busy():
    world = a_world(3, retries=0, quorum={"minimum": 3}).in_round(1)
    world.fails(world.identity("north"), Failure.DATA, "NotFinite")
    world.settle()
    others = [p.name for p in world.training.spec.participants if p.name != "north"]
    world.edited(participants=[{"name": name} for name in [*others, "newcomer"]]).settle()
    world.passes(minutes=1)
    plan = world.settle().look()
    assert plan.wake_at is not None
    assert plan.wake_at > world.now


def test_a_record_deleted_by_hand_is_made_again_with_what_its_children_have_done():
    world = a_world(3).in_round(1)
    for identity in world.live(Role.TRAIN):
        world.becomes_ready(identity)
    world.settle()
    del world.records["digits-00001"]
    world.look()
    assert {p.state for p in world.record(1).status.participants} == {"Running"}
