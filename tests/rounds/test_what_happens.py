"""Cases of docs/reference/failures.md that no policy's file has: action, reason and counter."""

from datetime import timedelta

import pytest
from world import World, a_world

from fedoperator.rounds import retry
from fedoperator.rounds.observed import Failure
from fedtrain.contract import Role

EVERYTHING = {"evaluation": {"by": "north"}, "personalization": {"fineTune": {}}}


def at(role: Role) -> World:
    """A training at the first moment at which something of this role runs."""
    world = a_world(2, rounds=1, **EVERYTHING).settle()
    for _ in range(9):
        if world.live(role):
            return world
        world.all_succeed()
    raise AssertionError(f"nothing of role {role} ever runs")


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.AGGREGATE])
def test_suspend_takes_away_what_runs_in_every_phase_and_charges_nobody(role):
    world = at(role)
    before = world.live()
    world.edited(suspend=True).settle()
    status = world.training.status
    assert (world.live(), status.phase, status.reason) == ([], "Suspended", "Suspended")
    world.edited(suspend=False).settle()
    assert [(i.role, i.participant, i.attempt) for i in world.live()] == [
        (i.role, i.participant, i.attempt + 1) for i in before
    ]
    assert {p.failures for p in world.record().status.participants} <= {0}
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_a_full_exchange_is_charged_to_nobody_and_blocks_once_it_holds_up_the_round():
    world = a_world(retries=0).in_round(1)
    world.fails(world.identity("north"), Failure.FREE, "ExchangeFull")
    world.settle()
    north = world.participant("north")
    assert (north.state, north.reason, north.failures) == ("Retrying", "ExchangeFull", 0)
    assert world.training.status.phase == "Training"
    world.fails(world.identity("south"), Failure.FREE, "ExchangeFull")
    world.settle()
    status = world.training.status
    assert (status.phase, status.reason) == ("Blocked", "ExchangeFull")
    waits = []
    for _ in range(9):
        world.now = max(p.not_before or world.now for p in world.record().status.participants)
        world.settle()
        for name in ("north", "south"):
            world.fails(world.identity(name), Failure.FREE, "ExchangeFull")
        world.settle()
        waits.append(world.participant("north").not_before - world.now)
    assert waits == [timedelta(seconds=min(4 * 2**n, 300)) for n in range(9)]
    assert {p.failures for p in world.record().status.participants} == {0}
    world.passes(minutes=5)
    assert world.to_the_end().training.status.phase == "Succeeded"


@pytest.mark.parametrize("reason", ["Disrupted", "NodeLost", "PodRejected"])
def test_what_the_next_attempt_mends_by_itself_blocks_nothing(reason):
    world = a_world(2, retries=0).in_round(1)
    world.fails(world.identity("north"), Failure.FREE, reason)
    world.settle()
    assert (world.training.status.phase, world.training.status.reason) == ("Training", "")
    assert (world.participant("north").reason, world.participant("north").failures) == (reason, 0)


def test_an_aggregation_backs_off_by_itself():
    world = a_world().in_round(1).all_succeed(Role.TRAIN)
    for attempt in range(1, 10):
        (aggregation,) = world.live(Role.AGGREGATE)
        assert aggregation.attempt == attempt
        world.fails(aggregation, Failure.COUNTED, "OOMKilled")
        world.settle()
        status = world.training.status
        assert (status.phase, status.reason) == ("Blocked", "OOMKilled")
        due = world.record().status.aggregation.not_before
        assert due - world.now == retry.backoff(attempt)
        world.now = due
        world.settle()
    assert {p.failures for p in world.record().status.participants} == {0}
    assert {p.state for p in world.record().status.participants} == {"Reported"}


def test_a_deadline_given_in_the_middle_of_a_round_holds_from_where_its_pods_ran():
    world = a_world().in_round(1)
    for identity in world.live():
        world.becomes_ready(identity)
    world.settle()
    for name in ("south", "east"):
        world.succeeds(world.identity(name))
    world.passes(minutes=20)
    world.settle()
    assert world.participant("north").state == "Running"
    world.edited(quorum={"minimum": 2, "deadline": "15m"}).settle()
    north = world.participant("north")
    assert (north.state, north.reason, north.failure) == ("Late", "Late", "Counted")


def test_a_leader_with_a_slower_clock_waits_no_longer_than_its_own_deadline():
    world = a_world(quorum={"minimum": 2, "deadline": "10m"}).in_round(1)
    for identity in world.live():
        world.becomes_ready(identity)
    world.settle()
    for name in ("south", "east"):
        world.succeeds(world.identity(name))
    world.settle()
    world.passes(hours=-5)
    world.settle()
    assert world.participant("north").started_at == world.now
    world.passes(minutes=10)
    world.settle()
    assert world.participant("north").state == "Late"


def test_a_leader_with_a_faster_clock_harvests_before_it_calls_anybody_late():
    world = a_world(quorum={"minimum": 2, "deadline": "10m"}).in_round(1)
    for identity in world.live():
        world.becomes_ready(identity)
    world.settle()
    for identity in world.live():
        world.succeeds(identity)
    world.passes(hours=5)
    world.settle()
    assert {p.state for p in world.record().status.participants} == {"Reported"}


def test_a_back_off_that_a_clock_ahead_wrote_is_not_waited_for():
    world = a_world(2, retries=1).in_round(1)
    world.fails(world.identity("north"))
    world.settle()
    world.passes(hours=-5)
    world.settle()
    assert (world.identity("north").attempt, world.participant("north").failures) == (2, 1)
