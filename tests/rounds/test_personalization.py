"""After the last round each participant trains for itself, and nobody's failure matters."""

import pytest
from world import World, a_world

from fedoperator.rounds.observed import Failure
from fedtrain.contract import Role

FINE_TUNE = {"fineTune": {"parameters": {"lr": 0.5}}}


def at_the_last_phase(**changes) -> World:
    spec = {"rounds": 2, "personalization": FINE_TUNE, "evaluation": {"by": "north"}, **changes}
    world = a_world(**spec).in_round(spec["rounds"])
    for _ in range(9):
        if world.live(Role.PERSONALIZE):
            return world
        world.all_succeed()
    raise AssertionError("the last phase never begins")


def test_it_begins_once_the_last_model_is_measured():
    world = a_world(rounds=2, personalization=FINE_TUNE, evaluation={"by": "north"}).in_round(2)
    world.all_succeed(Role.TRAIN).all_succeed(Role.AGGREGATE)
    assert {i.role for i in world.live()} == {Role.EVALUATE}
    while world.live(Role.EVALUATE):
        world.all_succeed(Role.EVALUATE)
    assert {(i.role, i.round, i.participant) for i in world.live()} == {
        (Role.PERSONALIZE, 2, name) for name in ("north", "south", "east")
    }
    assert world.training.status.phase == "Personalizing"


def test_it_needs_no_evaluation_before_it():
    world = at_the_last_phase(evaluation=None)
    assert not [i for i in world.created if i.role is Role.EVALUATE]


def test_everybody_is_asked_also_who_was_never_selected():
    world = at_the_last_phase(
        quorum={"minimum": 1}, selection={"fraction": 0.1, "seed": 3}, rounds=1
    )
    trained = {i.participant for i in world.created if i.role is Role.TRAIN}
    assert len(trained) == 1
    assert len(world.live(Role.PERSONALIZE)) == 3


def test_its_task_names_the_last_model_and_the_parameters_that_differ():
    world = at_the_last_phase(parameters={"lr": 0.1, "epochs": 5})
    task = world.made[world.identity("north", Role.PERSONALIZE)].task
    assert task.model.path == "global/2/1"
    assert task.model.digest == world.record(2).status.global_model.digest
    assert task.parameters == {"lr": 0.5, "epochs": 5}
    assert task.output == "updates/north/2/personalization-1"
    assert task.codec is None


def test_metrics_before_and_after_are_in_the_record_and_summed_up_in_the_status():
    world = at_the_last_phase(rounds=1)
    told = {"north": (0.2, 0.9, 10), "south": (0.4, 0.6, 30), "east": (0.6, 0.8, 60)}
    for name, (before, after, samples) in told.items():
        world.succeeds(
            world.identity(name, Role.PERSONALIZE),
            before={"accuracy": before, "only": 1.0},
            metrics={"accuracy": after},
            samples=samples,
        )
    world.settle()
    record, status = world.record(1), world.training.status
    tuned = record.status.personalization
    found = {t.name: (t.before["accuracy"], t.metrics["accuracy"]) for t in tuned}
    assert found == {name: (before, after) for name, (before, after, _) in told.items()}
    assert status.phase == "Succeeded"
    assert set(status.personalized) == {"accuracy"}
    summed = status.personalized["accuracy"]
    assert summed.before == pytest.approx(0.1 * 0.2 + 0.3 * 0.4 + 0.6 * 0.6)
    assert summed.after == pytest.approx(0.1 * 0.9 + 0.3 * 0.6 + 0.6 * 0.8)
    assert (summed.worst.name, summed.best.name) == ("south", "north")
    (event,) = [e for e in world.events if e.reason == "Personalized"]
    assert "accuracy 0.5 became 0.75 (worst south 0.6, best north 0.9)" in event.message


def test_who_fails_in_it_is_said_and_the_training_succeeds():
    world = at_the_last_phase(retries=0)
    world.fails(world.identity("north", Role.PERSONALIZE), Failure.CONTRACT, "NoEvaluate")
    world.fails(world.identity("south", Role.PERSONALIZE), Failure.COUNTED, "ScriptKilled")
    said = {event.reason for event in world.look().events if event.warning}
    assert said == {"NoEvaluate", "ScriptKilled"}
    world.to_the_end()
    assert world.training.status.phase == "Succeeded"
    states = {t.name: t.state for t in world.record(2).status.personalization}
    assert states == {"north": "Failed", "south": "Failed", "east": "Reported"}
    assert world.training.status.personalized["accuracy"].worst.name == "east"


def test_nobody_holds_it_up_longer_than_the_deadline():
    world = at_the_last_phase(quorum={"minimum": 1, "deadline": "10m"})
    world.succeeds(world.identity("north", Role.PERSONALIZE))
    world.becomes_ready(world.identity("south", Role.PERSONALIZE))
    world.settle()
    world.passes(minutes=11)
    world.settle()
    states = {t.name: t.state for t in world.record(2).status.personalization}
    assert states == {"north": "Reported", "south": "Late", "east": "Late"}
    assert world.training.status.phase == "Succeeded"


def test_a_failure_that_counts_is_tried_again():
    world = at_the_last_phase(retries=1)
    world.fails(world.identity("north", Role.PERSONALIZE))
    world.settle()
    world.passes(seconds=5)
    world.settle()
    assert world.identity("north", Role.PERSONALIZE).attempt == 2


def test_suspension_takes_it_away_and_resumption_gives_it_back():
    world = at_the_last_phase()
    world.edited(suspend=True).settle()
    assert not world.live()
    assert world.training.status.phase == "Suspended"
    world.edited(suspend=False).settle()
    assert {i.attempt for i in world.live(Role.PERSONALIZE)} == {2}


def test_more_rounds_end_it_and_it_begins_anew_after_the_new_last_one():
    world = at_the_last_phase()
    world.edited(rounds=3).settle()
    assert not world.live(Role.PERSONALIZE)
    assert world.record(2).status.personalization == []
    assert {i.round for i in world.live()} == {3}
    world.to_the_end()
    assert {t.state for t in world.record(3).status.personalization} == {"Reported"}


def test_a_stop_ends_the_rounds_and_not_the_last_phase():
    rules = {"metric": "accuracy", "target": 0.2}
    world = a_world(
        rounds=9, evaluation={"by": "north"}, stop=rules, personalization=FINE_TUNE
    ).to_the_end()
    status = world.training.status
    assert (status.reason, status.global_model.round) == ("StoppedEarly", 2)
    assert len(world.record(2).status.personalization) == 3


def test_ditto_alone_has_no_last_phase_but_tells_every_task_its_pull():
    world = a_world(rounds=1, personalization={"ditto": {"pull": 0.25}}).to_the_end()
    tasks = [w.task for i, w in world.made.items() if i.role is Role.TRAIN]
    assert {task.pull for task in tasks} == {0.25}
    assert not [i for i in world.made if i.role is Role.PERSONALIZE]


def test_the_patterns_of_the_exchange_are_told_to_every_role():
    exchange = {"claimName": "exchange", "include": ["a.*"], "exclude": ["*.b"]}
    spec = {"exchange": exchange, "evaluation": {}, "personalization": FINE_TUNE, "rounds": 1}
    world = a_world(2, **spec).to_the_end()
    script = (Role.INIT, Role.TRAIN, Role.EVALUATE, Role.PERSONALIZE)
    tasks = [w.task for i, w in world.made.items() if i.role in script]
    assert len(tasks) == 7
    assert {(task.include, task.exclude) for task in tasks} == {(("a.*",), ("*.b",))}
