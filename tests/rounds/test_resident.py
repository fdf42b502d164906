"""Pods that stay: made once, kept while they are of use, let go when they are not."""

from dataclasses import replace

from staying import StayingWorld, a_staying_world

from fedoperator.rounds.observed import ChildState, Failure
from fedoperator.rounds.resident import SETTLING, carriers, settles_at
from fedtrain.contract import Role


def trained(world: StayingWorld) -> list[str]:
    """The names of the Jobs that were made for participants."""
    return [w.name for i, w in world.made.items() if i.role in (Role.TRAIN, Role.EVALUATE)]


def test_a_participant_has_one_job_for_all_its_rounds_and_evaluations():
    world = a_staying_world(rounds=4, evaluation={"by": "Participants"}).to_the_end()
    assert world.training.status.phase == "Succeeded"
    assert sorted(trained(world)) == [f"digits-train-1-{n}-1" for n in ("east", "north", "south")]
    assert [i.role for i in world.made].count(Role.PREPARE) == 1
    assert Role.AGGREGATE not in {i.role for i in world.made}, "the hub does it"


def test_the_initial_models_pod_does_not_stay_for_it_may_write_where_others_may_not():
    world = a_staying_world().in_round(1)
    assert {w.stays for i, w in world.made.items() if i.role is Role.INIT} == {False}


def test_shards_have_jobs_of_their_own():
    world = a_staying_world(rounds=2, aggregation={"shards": 3}).to_the_end()
    assert {i.round for i in world.made if i.role is Role.AGGREGATE} == {1, 2}


def test_one_who_dies_comes_back_and_the_others_stay():
    world = a_staying_world(rounds=3).in_round(2)
    before = set(world.carriers())
    world.fails(world.identity("north"), Failure.COUNTED, "OOMKilled")
    world.settle().passes(minutes=1)
    world.settle()
    after = set(world.carriers())
    assert {i.participant for i in before - after} == {"north"}
    assert {(i.participant, i.round, i.attempt) for i in after - before} == {("north", 2, 2)}
    assert world.participant("north").failures == 1
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_a_hub_that_dies_is_made_again_and_nobody_else_is():
    world = a_staying_world(rounds=3).in_round(2)
    before = set(world.carriers())
    world._dies(world.hub, Failure.FREE, None)
    world.settle().passes(minutes=1)
    world.settle()
    for identity in world.live(Role.PREPARE):
        world.succeeds(identity)
    world.settle()
    assert world.hub is not None
    assert set(world.carriers()) == before
    assert {p.failures for p in world.record().status.participants} == {0}
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_an_aggregation_that_dies_with_the_hub_is_done_again_by_the_next():
    world = a_staying_world(rounds=1).in_round(1).all_succeed(Role.TRAIN)
    assert [i.attempt for i in world.live(Role.AGGREGATE)] == [1]
    world.becomes_ready(world.live(Role.AGGREGATE)[0])
    world._dies(world.hub, Failure.FREE, None)
    world.to_the_end()
    assert world.training.status.phase == "Succeeded"


def test_work_that_nobody_waits_for_any_more_costs_its_doer_its_place():
    world = a_staying_world(quorum={"minimum": 2, "deadline": "10m"}).in_round(2)
    for identity in world.live(Role.TRAIN):
        world.becomes_ready(identity)
    world.settle()
    for name in ("south", "east"):
        world.succeeds(world.identity(name))
    world.settle()
    world.passes(minutes=11)
    world.settle()
    assert world.participant("north", 2).state == "Late"
    assert "north" not in {i.participant for i in world.carriers()}
    assert {"south", "east"} <= {i.participant for i in world.carriers()}


def test_an_idle_one_is_let_go_and_made_again_when_it_is_invited():
    world = a_staying_world(idleTimeout="5m", selection={"fraction": 0.4, "minimum": 2}).in_round(1)
    first = {i.participant for i in world.live(Role.TRAIN)}
    for identity in world.live(Role.TRAIN)[:1]:
        world.succeeds(identity)
    world.settle()
    assert world.released == set()
    world.passes(minutes=6)
    world.settle()
    idle = next(world.jobs[i] for i in world.carriers() if i.participant == min(first))
    assert world.released == {idle.uid}


def test_a_removed_participant_goes_and_suspend_sends_all_home():
    world = a_staying_world(4).in_round(2)
    world.edited(participants=[{"name": n} for n in ("south", "east", "west")]).settle()
    assert "north" not in {i.participant for i in world.carriers()}
    world.edited(suspend=True).settle()
    assert [job for job in world.jobs.values() if not job.finished] == []
    world.edited(suspend=False)
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_after_the_end_they_have_a_minute_to_end_their_scripts():
    world = a_staying_world(rounds=1).in_round(1)
    while not world.training.status.terminal:
        world.all_succeed()
    assert {job.state for job in world.jobs.values() if job.resident} == {ChildState.READY}
    plan = world.look()
    assert plan.over
    assert plan.delete == ()
    world.passes(seconds=61)
    world.look()
    assert [job for job in world.jobs.values() if not job.finished] == []


def test_a_new_hub_that_has_heard_of_nobody_yet_costs_nobody_its_place():
    world = a_staying_world(rounds=3).in_round(2)
    before = set(world.carriers())
    world.reports.clear()
    world.settle()
    assert set(world.carriers()) == before


def test_a_hub_that_dies_while_all_train_for_themselves_is_made_again():
    world = a_staying_world(rounds=1, personalization={"fineTune": {}}).in_round(1)
    while not world.live(Role.PERSONALIZE):
        world.all_succeed()
    world._dies(world.hub, Failure.COUNTED, None)
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_a_hub_that_dies_while_the_model_before_is_measured_is_made_again():
    world = a_staying_world(rounds=5, evaluation={"by": "north", "every": 2}).in_round(3)
    for role in (Role.TRAIN, Role.AGGREGATE):
        for identity in world.live(role):
            world.succeeds(identity)
        world.settle()
    assert world.record(3).status.phase == "Published"
    assert {i.round for i in world.live(Role.EVALUATE)} == {2}
    world._dies(world.hub, Failure.FREE, None)
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_one_that_is_made_again_under_its_old_name_does_not_answer_for_what_the_first_had_taken():
    world = a_staying_world().in_round(2)
    taken = world.identity("north")
    carrier = world.carrier(taken)
    world.becomes_ready(taken)
    again = replace(world.jobs[carrier], uid="another", state=ChildState.PENDING)
    world.jobs[carrier] = again
    assert carriers(world.observed(), world.now)["north"].busy == carrier != taken
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_suspend_also_rests_the_preparation_of_the_round_before():
    world = a_staying_world().in_round(1)
    for identity in world.live(Role.TRAIN):
        world.succeeds(identity)
    world.settle()
    world._dies(world.hub, Failure.FREE, None)
    world.settle()
    world.becomes_ready(world.identity("", Role.PREPARE))
    world.settle()
    world.succeeds(world.identity("", Role.AGGREGATE))
    world.settle()
    assert world.training.status.round == 2
    assert world.record(1).status.prepare.is_open
    world.edited(suspend=True).settle()
    assert [job for job in world.jobs.values() if not job.finished] == []
    world.edited(suspend=False)
    assert world.to_the_end().training.status.phase == "Succeeded"


def test_who_says_to_be_the_hub_does_not_cost_it_its_place():
    world = a_staying_world(rounds=3).in_round(2)
    north = world.identity("north")
    world.becomes_ready(north)
    hub = world.hub
    assert hub is not None
    honest = world.observed().reports
    lie = replace(world.reports[north], carrier=world.jobs[hub].uid)
    seen = replace(world.observed(), reports=(*honest, lie))
    assert carriers(seen, world.now)[""].busy is None


def test_a_new_hub_gives_up_who_runs_and_was_not_heard_of_at_a_moment_that_is_known():
    world = a_staying_world(rounds=3).in_round(2)
    north = world.identity("north")
    world.becomes_ready(north)
    world.settle()
    heard = world.now
    silent = replace(world.observed(), reports=(), heard_since=heard)
    assert settles_at(carriers(silent, heard).values(), heard) == heard + SETTLING
    assert settles_at(carriers(world.observed(), heard).values(), heard) is None
