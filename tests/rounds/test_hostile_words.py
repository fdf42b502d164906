"""What pods say of themselves may be wrong, huge or absurd: it costs nobody but the teller."""

import json

import pytest
from world import a_world

from fedoperator.rounds.observed import Failure
from fedtrain.contract import Message, Role


def size(record) -> int:
    return len(json.dumps(record.status.to_dict()))


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e301, float("inf"), True, "1", None, []])
def test_numbers_that_cannot_be_summed_are_no_numbers(value):
    world = a_world().in_round(1)
    world.succeeds(world.identity("north"), seconds=value, metrics={"loss": value, "good": 2})
    world.settle()
    north = world.participant("north")
    assert (north.seconds, north.metrics) == (None, {"good": 2.0})


def test_a_name_with_a_line_break_is_no_name_of_a_metric():
    world = a_world().in_round(1)
    world.succeeds(world.identity("north"), metrics={"loss\n": 1, "loss": 2})
    world.settle()
    assert world.participant("north").metrics == {"loss": 2.0}


def test_a_reason_is_one_word_of_bounded_length():
    text = json.dumps({"reason": "A b\n" * 300, "message": "m", "result": {}})
    assert Message.decode(text).reason == "Ab" * 40
    world = a_world().in_round(1)
    world.fails(world.identity("north"), reason="R" * 5000)
    world.settle()
    assert len(world.participant("north").reason) == 80


def test_many_evaluators_with_metrics_of_their_own_fit_into_one_round():
    world = a_world(rounds=1, evaluation={"by": "Participants"}).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    for identity in world.live():
        named = {f"{identity.participant}_{n}": 1.0 for n in range(20)} | {"accuracy": 0.5}
        world.succeeds(identity, metrics=named)
    world.settle()
    metrics = world.training.status.metrics
    assert len(metrics) == 20
    assert metrics["accuracy"] == 0.5


def test_a_mean_of_large_numbers_stays_finite():
    world = a_world(rounds=1, evaluation={"by": "Participants"}).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    for identity in world.live():
        world.succeeds(identity, metrics={"loss": 9e299}, samples=2**52)
    world.settle()
    assert world.training.status.metrics["loss"] == pytest.approx(9e299)


def test_an_evaluator_does_not_weigh_more_than_the_cap():
    world = a_world(rounds=1, evaluation={"by": "Participants"}, weight={"max": 10}).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    for identity, accuracy in zip(world.live(), (1.0, 0.1, 0.1), strict=True):
        world.succeeds(identity, metrics={"accuracy": accuracy}, samples=2**52)
    world.settle()
    assert world.training.status.metrics["accuracy"] == pytest.approx(0.4)


def test_the_record_of_a_thousand_talkative_participants_fits_into_etcd():
    names = [{"name": f"participant-with-quite-a-long-name-{n:04d}"} for n in range(1000)]
    spec = {"evaluation": {"by": "Participants"}, "personalization": {"fineTune": {}}}
    world = a_world(participants=3, rounds=1, retries=1, **spec)
    world.edited(participants=names).in_round(1)
    for identity in world.live(Role.TRAIN):
        world.jobs[identity] = world.jobs[identity]
        world.fails(identity, reason="ScriptFailed")
        trouble = world.jobs[identity].trouble
        object.__setattr__(trouble, "message", "x" * 1950)
    world.settle()
    world.passes(minutes=1)
    world.settle()
    named = {f"a_metric_with_a_rather_long_name_{n}": 0.1234567890123 for n in range(20)}
    for role in (Role.TRAIN, Role.AGGREGATE, Role.EVALUATE, Role.PERSONALIZE):
        for identity in world.live(role):
            told = {} if role is Role.AGGREGATE else {"metrics": named, "before": named}
            world.succeeds(identity, **told)
        world.settle()
    record = world.record(1)
    assert world.training.status.phase == "Succeeded"
    assert all(t.before and t.metrics for t in record.status.personalization)
    assert record.status.participants[0].last_failure.startswith("ScriptFailed: xxx")
    assert size(record) < 1_400_000, size(record)


@pytest.mark.parametrize("failing", [False, True])
def test_an_evaluator_that_never_starts_or_always_fails_is_late(failing):
    quorum = {"minimum": 2, "deadline": "10m"}
    world = a_world(rounds=2, evaluation={"by": "Participants"}, quorum=quorum).in_round(2)
    for _ in range(20):
        stuck = [i for i in world.live(Role.EVALUATE) if i.participant == "north"]
        for identity in world.live():
            if identity not in stuck:
                world.succeeds(identity)
            elif failing:
                world.fails(identity, Failure.FREE, "ExchangeFull")
            else:
                world.cannot_start(identity)
        world.settle()
        world.passes(minutes=6)
        world.settle()
    assert world.training.status.phase == "Succeeded"
    late = next(e for e in world.record(1).status.evaluation if e.name == "north")
    assert late.state == "Late"


def test_an_evaluation_that_cannot_start_is_named_while_everything_waits_for_it():
    world = a_world(rounds=1, evaluation={"by": "north"}).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    world.cannot_start(world.live()[0])
    world.settle()
    status = world.training.status
    assert (status.phase, status.reason) == ("Blocked", "ImagePullFailed")
    assert status.message == "evaluation: participant north: it cannot start"


def test_an_evaluator_that_never_tells_anything_spends_its_retries():
    world = a_world(rounds=1, retries=1, evaluation={"by": "north"}).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    for _ in range(2):
        world.succeeds(world.live()[0], silent=True)
        world.settle()
        world.passes(minutes=1)
        world.settle()
    assert world.training.status.phase == "Succeeded"
    assert world.record(1).status.evaluation[0].reason == "ResultLost"
