"""Who is worst and who is best, which models are kept for being good, and who measures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World, a_world

from fedoperator.api.round import Assignment
from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import spread
from fedtrain.contract import Role
from tests.rounds.world import a_spec

ALL = {"by": "Participants"}


def measured(world: World, values: dict[int, dict[str, float]], metric: str = "accuracy") -> World:
    """To the end, with these values of each round at each participant."""
    while not world.training.status.terminal:
        for identity in world.live(Role.EVALUATE):
            value = values[identity.round][identity.participant]
            world.succeeds(identity, metrics={metric: value}, samples=1)
        world.settle().all_succeed()
    return world


def alike(value: float) -> dict[str, float]:
    return dict.fromkeys(("north", "south", "east"), value)


def test_the_worst_and_the_best_are_named_by_metric():
    world = a_world(rounds=1, evaluation=ALL)
    measured(world, {1: {"north": 0.5, "south": 0.9, "east": 0.7}})
    status, record = world.training.status, world.record(1).status
    found = status.spread["accuracy"]
    assert (found.worst.name, found.worst.value) == ("north", 0.5)
    assert (found.best.name, found.best.value) == ("south", 0.9)
    assert record.spread == status.spread
    assert record.worst == "north accuracy=0.5"


@pytest.mark.parametrize(
    ("metric", "changes", "worst"),
    [
        ("loss", {}, "south"),
        ("personal_loss", {}, "south"),
        ("error", {}, "north"),
        ("error", {"evaluation": {"lessIsBetter": ["error"]}}, "south"),
        ("loss", {"evaluation": {"lessIsBetter": []}}, "north"),
        ("error", {"stop": {"metric": "error", "target": 0, "mode": "Min"}}, "south"),
    ],
)
def test_what_is_worse_depends_on_the_metric(metric, changes, worst):
    spec = {"rounds": 1, "evaluation": {}, **changes}
    values = {1: {"north": 0.5, "south": 0.9, "east": 0.7}}
    world = measured(a_world(**spec), values, metric)
    assert world.training.status.spread[metric].worst.name == worst


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), st.floats(-1e9, 1e9), min_size=1),
    st.sampled_from(["accuracy", "loss"]),
)
def test_nobody_is_worse_than_the_worst_or_better_than_the_best(values, metric):
    spec = TrainingSpec.model_validate(a_spec(evaluation={}))
    done = [
        Assignment(name=name, state="Reported", metrics={metric: value})
        for name, value in values.items()
    ]
    found = spread.of(spec, done)[metric]
    sign = -1 if metric == "loss" else 1
    for name, value in values.items():
        assert sign * found.worst.value <= sign * value <= sign * found.best.value
        if value == found.worst.value:
            assert found.worst.name <= name
        if value == found.best.value:
            assert found.best.name <= name


def test_one_evaluator_is_no_news_in_the_column():
    world = a_world(rounds=1, evaluation={"by": "north"}).to_the_end()
    assert world.record(1).status.worst == ""


@pytest.mark.parametrize(
    ("of", "last", "value"), [("Mean", 2, 0.7), ("Worst", 3, 0.6), ("Best", 1, 0.9)]
)
def test_a_stop_reads_the_mean_the_worst_or_the_best(of, last, value):
    target = {"Mean": 0.65, "Worst": 0.55, "Best": 0.85}[of]
    rules = {"metric": "accuracy", "target": target, "of": of}
    world = measured(
        a_world(rounds=4, evaluation=ALL, stop=rules),
        {
            1: {"north": 0.1, "south": 0.9, "east": 0.2},
            2: {"north": 0.5, "south": 0.8, "east": 0.8},
            3: {"north": 0.6, "south": 0.8, "east": 0.8},
            4: alike(0.9),
        },
    )
    status = world.training.status
    assert status.global_model.round == last
    assert (status.best.of, status.best.round) == (of, last)
    assert status.best.value == pytest.approx(value)


def kept_at(world: World, number: int) -> tuple[str, ...]:
    """What the aggregation of a round was told to keep."""
    (identity,) = [i for i in world.made if i.role is Role.AGGREGATE and i.round == number]
    return world.made[identity].task.keep


def test_the_best_models_are_kept_and_the_aggregator_is_told():
    values = {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.9, 5: 0.1}
    world = measured(
        a_world(rounds=5, evaluation=ALL, keep={"best": 2, "metric": "accuracy"}),
        {number: alike(value) for number, value in values.items()},
    )
    kept = world.training.status.kept
    assert [(best.round, best.value) for best in kept] == [
        (2, pytest.approx(0.9)),
        (4, pytest.approx(0.9)),
    ]
    assert [best.model.folder for best in kept] == ["global/2/1", "global/4/1"]
    # Round r's evaluation runs beside round r+1, so that r+2's aggregation knows of it for sure.
    assert kept_at(world, 1) == ()
    assert "global/2/1" in kept_at(world, 4)
    assert kept_at(world, 5)[0] == "global/2/1"


def test_with_a_stop_the_best_are_those_that_it_reads():
    rules = {"metric": "loss", "target": -1.0, "mode": "Min", "of": "Worst"}
    world = measured(
        a_world(rounds=3, evaluation=ALL, stop=rules, keep={"best": 1}),
        {
            1: {"north": 0.1, "south": 0.9, "east": 0.1},
            2: {"north": 0.6, "south": 0.7, "east": 0.6},
            3: alike(0.8),
        },
        "loss",
    )
    (best,) = world.training.status.kept
    assert (best.round, best.value, best.of) == (2, 0.7, "Worst")
    assert world.training.status.best == best


def test_what_another_metric_kept_is_forgotten():
    world = a_world(rounds=4, evaluation=ALL, keep={"best": 2, "metric": "accuracy"}).in_round(3)
    assert {best.metric for best in world.training.status.kept} == {"accuracy"}
    world.edited(keep={"best": 2, "metric": "f1"}).settle()
    assert world.training.status.kept == []


CENTRE = {"name": "centre", "trainer": {"nodes": 2}, "data": {"claimName": "held-out"}}


def test_an_evaluator_that_is_no_participant_measures_alone():
    world = a_world(rounds=2, evaluation={"evaluator": CENTRE}).to_the_end()
    by = {(i.participant, i.round) for i in world.created if i.role is Role.EVALUATE}
    assert by == {("centre", 1), ("centre", 2)}
    assert not [i for i in world.created if i.role is Role.TRAIN and i.participant == "centre"]
    workload = next(w for i, w in world.made.items() if i.role is Role.EVALUATE)
    assert (workload.nodes, workload.data.claim_name) == (2, "held-out")
    assert world.training.status.metrics == {"accuracy": pytest.approx(0.2)}


def test_an_evaluator_gets_its_folder_like_a_participant():
    world = a_world(rounds=3, evaluation={"evaluator": CENTRE}).in_round(1)
    assert "centre" in world.folders
    other = a_world(rounds=3, evaluation=ALL).in_round(2)
    other.edited(evaluation={"evaluator": CENTRE}).to_the_end()
    assert ("centre", 3) in {(i.participant, i.round) for i in other.created}


def test_an_evaluator_that_is_taken_away_holds_up_nobody():
    world = a_world(rounds=2, evaluation={"evaluator": CENTRE}).in_round(2)
    world.edited(evaluation={"by": "north"}).settle()
    (dropped,) = world.record(1).status.evaluation
    assert (dropped.name, dropped.state) == ("centre", "Dropped")
    assert world.to_the_end().training.status.phase == "Succeeded"
