"""What happens when nothing goes wrong."""

from world import a_world

from fedoperator.api.round import record_name
from fedtrain.contract import Role


def test_the_first_child_is_the_preparation():
    world = a_world().settle()
    assert [i.role for i in world.live()] == [Role.PREPARE]
    assert world.training.status.phase == "Pending"


def test_the_initial_model_comes_from_the_first_participant():
    world = a_world().settle().all_succeed()
    assert [(i.role, i.participant) for i in world.live()] == [(Role.INIT, "north")]
    assert world.training.status.phase == "Initialising"


def test_a_training_goes_through_all_its_rounds():
    world = a_world(rounds=4).to_the_end()
    status = world.training.status
    assert (status.phase, status.reason, status.progress) == ("Succeeded", "AllRoundsDone", "4/4")
    assert status.global_model.path == "digits-1a2b3c4d/global/4/1/model.safetensors"
    assert sorted(world.records) == [record_name("digits", n) for n in range(5)]
    for number in range(1, 5):
        states = {p.state for p in world.record(number).status.participants}
        assert states == {"Accepted"}


def test_weights_are_the_shares_of_the_samples():
    world = a_world().in_round(2)
    participants = world.record(1).status.participants
    total = sum(p.samples for p in participants)
    assert [p.weight for p in participants] == [p.samples / total for p in participants]


def test_a_record_shows_its_round_in_columns():
    world = a_world(rounds=1, evaluation={"by": "north"}).to_the_end()
    status = world.record(1).status
    assert (status.accepted, status.score) == ("3/3", "accuracy=0.1")
    first = status.participants[0]
    assert status.shares.startswith(f"{first.name} {first.samples} ({first.weight:.3f}), ")


def test_a_record_of_many_participants_shows_as_many_as_fit():
    status = a_world(60, rounds=1).to_the_end().record(1).status
    assert status.accepted == "60/60"
    assert len(status.shares) <= 253
    assert status.shares.endswith(") ...")


def test_a_cap_on_samples_caps_the_weight():
    world = a_world(weight={"by": "Samples", "max": 10}).in_round(2)
    assert {p.weight for p in world.record(1).status.participants} == {1 / 3}


def test_folders_are_prepared_again_only_after_a_change_of_the_spec():
    world = a_world(rounds=3).in_round(2)
    assert [i.round for i in world.created if i.role is Role.PREPARE] == [0]
    world.edited(rounds=4).to_the_end()
    assert [i.round for i in world.created if i.role is Role.PREPARE] == [0, 3]


def test_an_idle_operator_writes_nothing():
    world = a_world().in_round(1)
    before = world.writes
    for _ in range(5):
        world.look()
        world.passes(seconds=10)
    assert world.writes == before


def test_finished_children_stay_for_two_rounds_and_then_go():
    world = a_world(rounds=5).in_round(4)
    assert {i.round for i in world.jobs} == {3, 4}


def test_records_beyond_the_history_are_forgotten():
    world = a_world(rounds=6, history=3).to_the_end()
    assert sorted(r.spec.round for r in world.records.values()) == [4, 5, 6]


def test_a_history_that_was_shortened_is_kept_to_from_the_next_round_on():
    world = a_world(rounds=6).in_round(5)
    world.edited(history=2).to_the_end()
    assert sorted(r.spec.round for r in world.records.values()) == [5, 6]


def test_an_imported_model_is_nobodys_work_but_the_operators():
    world = a_world(model={"claimName": "llama", "path": "model.safetensors"}).settle()
    world.all_succeed()
    (importing,) = world.live()
    assert (importing.role, importing.participant) == (Role.INIT, "")
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_a_succeeded_training_is_never_touched_again():
    world = a_world(rounds=1).to_the_end()
    world.edited(rounds=9).settle()
    assert (world.training.status.phase, world.live()) == ("Succeeded", [])


def test_a_training_being_deleted_is_left_alone():
    world = a_world().in_round(1)
    world.training = world.training.model_copy(update={"deleting": True})
    plan = world.look()
    assert (plan.records, plan.create, plan.delete, plan.wake_at) == ((), (), (), None)


def test_the_story_is_told_in_events():
    world = a_world(rounds=1, evaluation={"by": "south"}).to_the_end()
    assert [e.reason for e in world.events] == [
        "RoundPublished",
        "RoundStarted",
        "RoundPublished",
        "Evaluated",
        "Succeeded",
    ]
