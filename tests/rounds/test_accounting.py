"""What a round cost: seconds by phase, and of accelerators held and used."""

from fedoperator.rounds.observed import Failure
from fedtrain.contract import Role
from tests.rounds.world import World, a_spec, a_world

GPUS = {**a_spec()["trainer"], "nodes": 2, "resources": {"limits": {"nvidia.com/gpu": 4}}}


def all_ready(world: World) -> World:
    for identity in world.live(Role.TRAIN):
        world.becomes_ready(identity)
    return world.settle()


def trained(world: World, *, measured: float = 30, **passes: float) -> World:
    """Everybody's pods are ready for so long, and measure so much."""
    all_ready(world).passes(**passes)
    for identity in world.live(Role.TRAIN):
        world.succeeds(identity, seconds=measured)
    return world.settle()


def test_each_phase_of_a_round_has_its_seconds():
    world = a_world().in_round(1)
    trained(world, minutes=1)
    world.passes(seconds=5)
    world.all_succeed(Role.AGGREGATE)
    assert world.record(1).status.durations == {"Training": 60, "Aggregating": 5}


def test_what_a_round_was_suspended_for_is_not_training():
    world = a_world().in_round(1)
    all_ready(world).passes(seconds=10)
    world.edited(suspend=True).settle()
    world.passes(hours=2)
    world.edited(suspend=False).settle()
    trained(world)
    durations = world.record(1).status.durations
    assert (durations["Training"], durations["Suspended"]) == (10, 7200)


def test_accelerators_are_held_while_pods_are_ready_and_used_while_they_train():
    world = a_world(trainer=GPUS).in_round(1)
    trained(world, measured=45, minutes=1)
    accelerators = world.record(1).status.accelerators
    assert (accelerators.held, accelerators.used) == (3 * 8 * 60, 3 * 8 * 45)


def test_pods_that_are_over_hold_nothing_however_long_nobody_looked():
    world = all_ready(a_world(trainer=GPUS).in_round(1))
    world.passes(minutes=1)
    for identity in world.live(Role.TRAIN):
        world.succeeds(identity, seconds=45)
    world.passes(hours=10)
    world.settle()
    assert world.record(1).status.accelerators.held == 3 * 8 * 60


def test_an_attempt_that_failed_held_what_nobody_used():
    world = a_world(trainer=GPUS).in_round(1)
    all_ready(world).passes(minutes=2)
    world.fails(world.identity("north"), Failure.COUNTED)
    world.settle()
    accelerators = world.record(1).status.accelerators
    assert (accelerators.held, accelerators.used) == (8 * 120, 0)


def test_without_accelerators_there_is_nothing_to_count():
    world = trained(a_world().in_round(1), minutes=1)
    assert world.record(1).status.accelerators is None
