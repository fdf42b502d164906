"""A metric belongs to the model it measured, and `stop` reads only these."""

import pytest
from world import a_world

from fedoperator.api.status import Best
from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import stop
from fedtrain.contract import Role


def test_a_model_is_evaluated_beside_the_next_round():
    world = a_world(evaluation={"by": "north"}).in_round(2)
    roles = {(i.role, i.round) for i in world.live()}
    assert roles == {(Role.TRAIN, 2), (Role.EVALUATE, 1)}


def test_the_round_after_the_next_waits_for_the_evaluation():
    world = a_world(evaluation={"by": "north"}).in_round(2)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    assert world.training.status.global_model.round == 2
    assert {(i.role, i.round) for i in world.live()} == {(Role.EVALUATE, 1), (Role.EVALUATE, 2)}
    assert world.training.status.phase == "Evaluating"
    world.succeeds(next(i for i in world.live() if i.round == 1))
    world.settle()
    assert world.training.status.round == 3


def test_with_stop_the_next_round_waits():
    rules = {"metric": "accuracy", "target": 0.99}
    world = a_world(evaluation={"by": "north"}, stop=rules).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    assert [i.role for i in world.live()] == [Role.EVALUATE]


def test_the_last_model_is_always_evaluated():
    world = a_world(rounds=3, evaluation={"by": "north", "every": 2}).to_the_end()
    assert [i.round for i in world.created if i.role is Role.EVALUATE] == [2, 3]
    assert world.training.status.evaluated_round == 3


def test_metrics_are_the_mean_weighted_by_samples():
    world = a_world(rounds=1, evaluation={"by": "Participants"}).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    for identity, accuracy, samples in zip(
        world.live(), (1.0, 0.5, 0.0), (10, 30, 60), strict=True
    ):
        world.succeeds(identity, metrics={"accuracy": accuracy}, samples=samples)
    world.settle()
    assert world.training.status.metrics == {"accuracy": pytest.approx(0.25)}
    assert world.training.status.score == "accuracy=0.25"


def test_a_target_ends_the_training_early():
    rules = {"metric": "accuracy", "target": 0.2}
    world = a_world(rounds=9, evaluation={"by": "north"}, stop=rules).to_the_end()
    status = world.training.status
    assert (status.phase, status.reason, status.global_model.round) == (
        "Succeeded",
        "StoppedEarly",
        2,
    )


def test_patience_ends_a_training_that_no_longer_gets_better():
    rules = {"metric": "loss", "patience": 2, "mode": "Min"}
    world = a_world(rounds=9, evaluation={"by": "north"}, stop=rules).settle()
    losses = {1: 1.0, 2: 0.5, 3: 0.6, 4: 0.5, 5: 0.1}
    while not world.training.status.terminal:
        for identity in world.live(Role.EVALUATE):
            world.succeeds(identity, metrics={"loss": losses[identity.round]})
        world.settle().all_succeed()
    assert world.training.status.global_model.round == 4
    best = world.training.status.best
    assert best == Best(metric="loss", mode="Min", round=2, value=0.5, model=best.model)
    assert best.model.folder == "global/2/1"


def test_the_best_of_another_metric_does_not_count():
    rules = {"metric": "accuracy", "patience": 2}
    world = a_world(rounds=9, evaluation={"by": "north"}, stop=rules).in_round(3)
    assert world.training.status.best.round == 2
    world.edited(stop={"metric": "f1", "patience": 2})
    while not world.training.status.terminal:
        for identity in world.live(Role.EVALUATE):
            world.succeeds(identity, metrics={"accuracy": 0.9, "f1": 0.001})
        world.settle().all_succeed()
    best = world.training.status.best
    assert best == Best(metric="f1", mode="Max", round=3, value=0.001, model=best.model)
    assert world.training.status.global_model.round == 5


def test_a_newcomer_evaluates_only_when_its_folder_has_been_made():
    world = a_world(2, rounds=1, evaluation={"by": "Participants"}).in_round(1)
    world.all_succeed(Role.TRAIN)
    world.edited(participants=[{"name": n} for n in ("north", "south", "late-comer")])
    world.all_succeed(Role.AGGREGATE)
    assert [i.role for i in world.live()] == [Role.PREPARE]
    assert world.training.status.phase == "Evaluating"
    world.all_succeed(Role.PREPARE)
    assert {(i.role, i.participant) for i in world.live()} == {
        (Role.EVALUATE, name) for name in ("north", "south", "late-comer")
    }
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_a_failed_evaluation_does_not_hold_up_the_training():
    world = a_world(rounds=1, retries=0, evaluation={"by": "north"}).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    world.fails(world.identity("north", Role.EVALUATE))
    world.settle()
    assert world.training.status.phase == "Succeeded"
    assert world.training.status.metrics == {}


def test_rounds_lowered_to_the_current_one_end_the_training_with_an_evaluation():
    world = a_world(rounds=9, evaluation={"by": "north", "every": 5}).in_round(2)
    world.edited(rounds=2).to_the_end()
    assert world.training.status.evaluated_round == 2


@pytest.mark.parametrize(("mode", "value", "expected"), [("Max", 0.9, True), ("Min", 0.9, False)])
def test_a_target_is_a_floor_or_a_ceiling(mode, value, expected):
    from world import a_spec

    rules = {"metric": "m", "target": 0.5, "mode": mode}
    spec = TrainingSpec.model_validate(a_spec(stop=rules, evaluation={}))
    assert stop.stops(spec, None, 1, value) is expected


@pytest.mark.parametrize(
    ("listed", "mode", "expected"),
    [
        (["loss"], None, False),
        ([], None, True),
        (["loss"], "Max", True),
        ([], "Min", False),
    ],
)
def test_without_a_mode_less_of_it_is_better_if_the_evaluation_says_so(listed, mode, expected):
    from world import a_spec

    rules = {"metric": "loss", "target": 0.5, **({"mode": mode} if mode else {})}
    spec = TrainingSpec.model_validate(a_spec(stop=rules, evaluation={"lessIsBetter": listed}))
    assert stop.stops(spec, None, 1, 0.81) is expected
    assert spec.less_is_better("loss") is not expected


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"stop": {"metric": "acuracy", "target": 0.2}}, "spec.stop.metric: acuracy was not"),
        ({"keep": {"best": 1, "metric": "acuracy"}}, "spec.keep.metric: acuracy was not"),
    ],
)
def test_a_metric_that_nobody_measured_is_told_with_the_one_that_was_meant(spec, said):
    world = a_world(rounds=1, evaluation={"by": "Participants"}, **spec).to_the_end()
    (event,) = [e for e in world.events if e.reason == "MetricMissing"]
    assert event.warning
    assert event.message.startswith(said)
    assert event.message.endswith("in round 1, only accuracy; did you mean accuracy?")


def test_a_metric_that_was_measured_is_not_complained_about():
    rules = {"metric": "accuracy", "patience": 1}
    world = a_world(rounds=3, evaluation={"by": "north"}, stop=rules).to_the_end()
    assert not [e for e in world.events if e.reason == "MetricMissing"]


def test_a_metric_is_told_to_be_missing_where_nothing_at_all_was_measured():
    rules = {"metric": "accuracy", "target": 0.9}
    world = a_world(rounds=1, evaluation={"by": "north"}, stop=rules).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    world.succeeds(world.identity("north", Role.EVALUATE), metrics={})
    world.settle()
    (event,) = [e for e in world.events if e.reason == "MetricMissing"]
    assert "nor was any other; have evaluate() return it" in event.message


def test_the_mean_is_of_the_metrics_that_the_record_keeps_whenever_they_were_told():
    """Sixty evaluators with twenty metrics each are more than a record holds."""
    world = a_world(60, rounds=2, evaluation={"by": "Participants"}).in_round(1)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    first, *others = world.live(Role.EVALUATE)
    for identity in others:
        world.succeeds(identity, metrics={f"m{n:02}": 1.0 for n in range(20)})
    world.settle()
    world.succeeds(first, metrics={f"m{n:02}": 61.0 for n in range(20)})
    world.settle()
    told = world.record(1).status.metrics
    assert set(told) == {name for e in world.record(1).status.evaluation for name in e.metrics}
    assert list(told.values()) == [pytest.approx(2.0)] * len(told)
    world.all_succeed(Role.TRAIN)
    assert world.record(1).status.metrics == told
