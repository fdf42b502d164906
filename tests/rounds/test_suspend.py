"""Suspend takes what runs away at once and loses nothing."""

from world import a_world

from fedtrain.contract import Role


def test_suspend_deletes_unfinished_children_and_resume_starts_the_next_attempt_uncounted():
    world = a_world().in_round(1)
    world.succeeds(world.identity("north"))
    world.edited(suspend=True).settle()
    assert (world.live(), world.training.status.phase) == ([], "Suspended")
    world.edited(suspend=False).settle()
    assert [(i.participant, i.attempt) for i in world.live()] == [("east", 2), ("south", 2)]
    assert {p.failures for p in world.record().status.participants} == {0}
    assert [e.reason for e in world.events][-2:] == ["Suspended", "Resumed"]
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_an_aggregation_finishes_first_and_no_round_follows_it():
    world = a_world().in_round(1).all_succeed(Role.TRAIN)
    world.edited(suspend=True).settle()
    assert (world.training.status.phase, len(world.live())) == ("Aggregating", 1)
    world.succeeds(world.live()[0])
    world.settle()
    status = world.training.status
    assert (status.phase, status.global_model.round, world.live()) == ("Suspended", 1, [])


def test_a_round_that_is_complete_is_not_aggregated_while_suspended():
    world = a_world().in_round(1)
    for identity in world.live():
        world.succeeds(identity)
    world.edited(suspend=True).settle()
    assert world.live() == []
    world.edited(suspend=False).settle()
    assert [i.role for i in world.live()] == [Role.AGGREGATE]


def test_no_clock_runs_while_suspended():
    world = a_world(quorum={"minimum": 2, "deadline": "10m"}).in_round(1)
    for identity in world.live():
        world.becomes_ready(identity)
    world.settle()
    world.succeeds(world.identity("south"))
    world.succeeds(world.identity("east"))
    world.settle()
    world.edited(suspend=True).settle()
    world.passes(hours=3)
    world.settle()
    world.edited(suspend=False).settle()
    assert world.identity("north").attempt == 2
    world.passes(minutes=9)
    world.settle()
    assert world.participant("north").state == "Invited"


def test_suspending_twice_at_every_moment_still_ends_well():
    world = a_world(rounds=2, evaluation={"by": "Participants"}).settle()
    for _ in range(12):
        world.edited(suspend=True).settle()
        world.passes(minutes=1)
        world.edited(suspend=False).settle().all_succeed()
    assert world.to_the_end().training.status.phase == "Succeeded"
