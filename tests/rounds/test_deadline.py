"""Who is late, and when the clock runs."""

from world import a_world

QUORUM = {"minimum": 2, "deadline": "10m"}


def ready(world):
    for identity in world.live():
        world.becomes_ready(identity)
    return world.settle()


def test_a_participant_is_late_one_deadline_after_its_pods_were_ready():
    world = ready(a_world(quorum=QUORUM).in_round(1))
    world.succeeds(world.identity("south"))
    world.succeeds(world.identity("east"))
    world.settle()
    world.passes(minutes=9, seconds=59)
    world.settle()
    assert world.participant("north").state == "Running"
    assert world.last_plan.wake_at == world.participant("north").started_at.replace(minute=10)
    world.passes(seconds=1)
    world.settle()
    assert world.participant("north").state == "Late"
    assert world.record().status.phase == "Aggregating"
    assert "north" not in {i.participant for i in world.live()}


def test_time_in_a_queue_does_not_count():
    world = a_world(quorum=QUORUM).in_round(1)
    world.passes(hours=5)
    world.settle()
    assert {p.state for p in world.record().status.participants} == {"Invited"}


def test_one_that_never_starts_holds_up_a_round_with_its_quorum_for_one_deadline_only():
    world = a_world(quorum=QUORUM).in_round(1)
    world.succeeds(world.identity("south"))
    world.succeeds(world.identity("east"))
    world.settle()
    world.passes(minutes=11)
    world.settle()
    assert world.participant("north").state == "Late"


def test_an_update_reported_while_the_operator_was_away_counts_even_past_the_deadline():
    world = ready(a_world(quorum=QUORUM).in_round(1))
    for identity in world.live():
        world.succeeds(identity)
    world.passes(days=3)
    world.settle()
    assert len(world.record().status.candidates) == 3


def test_the_late_are_invited_again_if_the_quorum_is_missed():
    world = ready(a_world(quorum=QUORUM).in_round(1))
    world.passes(minutes=11)
    world.settle()
    assert world.training.status.reason == "QuorumMissed"
    world.passes(minutes=1)
    world.settle()
    assert {p.attempt for p in world.record().status.participants} == {2}


def test_a_late_update_is_not_counted_after_the_round_was_closed():
    world = ready(a_world(quorum=QUORUM).in_round(1))
    late = world.identity("north")
    seen = tuple(world.jobs.values())
    world.succeeds(world.identity("south"))
    world.succeeds(world.identity("east"))
    world.settle()
    world.passes(minutes=10)
    world.look(crash_after=2)
    world.succeeds(late)
    world.settle()
    assert [c.name for c in world.record().status.candidates] == ["east", "south"]
    assert seen
