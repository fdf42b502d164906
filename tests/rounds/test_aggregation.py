"""What the aggregator and the participants are told of strategy, shards, precision, compression."""

import pytest
from test_workloads import rendered, workloads_of
from world import World, a_world

from fedoperator.rounds import jobs
from fedoperator.rounds.observed import INDEX_ANNOTATION
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import AggregateTask, ParticipantTask, Role, decode_task, encode_task


def everything(**spec) -> World:
    """One round with an evaluation, so that every role comes up."""
    return a_world(rounds=1, evaluation={"by": "north"}).edited(**spec)


def container_of(workload: Workload) -> dict:
    (container,) = rendered(workload)["spec"]["template"]["spec"]["containers"]
    return container


def test_the_aggregator_is_told_the_strategy_with_every_parameter():
    task = workloads_of(everything(strategy={"name": "FedAdam", "tau": 0.1, "normBound": 3}))[
        Role.AGGREGATE
    ].task
    assert isinstance(task, AggregateTask)
    assert task.strategy == {
        "name": "FedAdam", "learningRate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 0.1,
    }  # fmt: skip
    assert task.norm_bound == 3
    assert decode_task(encode_task(task)) == task


def test_without_a_word_an_aggregation_is_one_pod_that_sums_in_fp32():
    workload = workloads_of(everything())[Role.AGGREGATE]
    task = workload.task
    assert (task.strategy, task.norm_bound, task.codec) == ({"name": "FedAvg"}, None, None)
    assert (task.precision, task.shards, workload.nodes) == ("Float32", 1, 1)
    assert container_of(workload)["resources"] == jobs.OWN_RESOURCES


def test_shards_are_the_pods_of_one_indexed_job():
    work = workloads_of(everything(aggregation={"shards": 3, "precision": "Exact"}))
    job = rendered(work[Role.AGGREGATE])
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 3)
    assert job["spec"]["completionMode"] == "Indexed"
    assert (work[Role.AGGREGATE].task.shards, work[Role.AGGREGATE].task.precision) == (3, "Exact")
    for role in (Role.PREPARE, Role.INIT, Role.TRAIN, Role.EVALUATE):
        assert rendered(work[role])["spec"]["parallelism"] == 1


def test_shards_go_to_different_nodes_where_they_can():
    job = rendered(workloads_of(everything(aggregation={"shards": 3}))[Role.AGGREGATE])
    template = job["spec"]["template"]
    (constraint,) = template["spec"]["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    assert constraint["labelSelector"]["matchLabels"] == template["metadata"]["labels"]
    alone = rendered(workloads_of(everything())[Role.AGGREGATE])
    assert "topologySpreadConstraints" not in alone["spec"]["template"]["spec"]


def test_the_pods_that_fedtrain_runs_itself_get_the_resources_asked_for():
    asked = {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    work = workloads_of(everything(aggregation={"resources": asked}))
    for role in (Role.PREPARE, Role.AGGREGATE):
        assert container_of(work[role])["resources"] == asked
    for role in (Role.INIT, Role.TRAIN, Role.EVALUATE):
        assert "resources" not in container_of(work[role])


def test_the_codec_is_told_to_those_who_train_and_to_the_aggregator():
    work = workloads_of(everything(compression={"codec": "Int8"}))
    codec = {"name": "Int8", "block": 256}
    told = {role: getattr(work[role].task, "codec", None) for role in work}
    assert told == {
        Role.PREPARE: None,
        Role.INIT: None,
        Role.TRAIN: codec,
        Role.AGGREGATE: codec,
        Role.EVALUATE: None,
    }


@pytest.mark.parametrize(
    ("strategy", "mu"),
    [
        ({"name": "FedProx", "mu": 0.5}, 0.5),
        ({"name": "FedProx"}, 0.01),
        ({"name": "FedNova"}, 0),
        ({"name": "FedNova", "mu": 0.5}, 0.5),
        ({}, 0),
    ],
)
def test_the_proximal_term_is_told_to_those_who_train(strategy, mu):
    task = workloads_of(everything(strategy=strategy))[Role.TRAIN].task
    assert isinstance(task, ParticipantTask)
    assert task.proximal == mu


def test_the_strategy_is_told_to_those_who_train_and_the_number_of_all_to_the_aggregator():
    work = workloads_of(everything(strategy={"name": "FedNova"}))
    told = {role: getattr(work[role].task, "strategy", None) for role in work}
    assert (told[Role.INIT], told[Role.TRAIN], told[Role.EVALUATE]) == (
        "FedAvg",
        "FedNova",
        "FedAvg",
    )
    aggregation = work[Role.AGGREGATE]
    assert aggregation.task.population == len(aggregation.training.spec.participants)


def volumes_of(workload: Workload) -> tuple[dict, dict]:
    """(volumes by name, mounts by name)"""
    pod = rendered(workload)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return {v["name"]: v for v in pod["volumes"]}, {m["name"]: m for m in container["volumeMounts"]}


def environment_of(workload: Workload) -> dict:
    return {e["name"]: e.get("value") for e in container_of(workload)["env"]}


def test_a_participants_scratch_is_writable_and_in_its_own_pods_only():
    claims = {"north": "north-work", "south": "south-work"}
    participants = [{"name": n, "scratch": {"claimName": claim}} for n, claim in claims.items()]
    seen = set()
    for workload in everything(participants=participants).to_the_end().made.values():
        volumes, mounts = volumes_of(workload)
        if workload.identity.role not in (Role.TRAIN, Role.EVALUATE):
            assert "scratch" not in volumes
            assert "FEDTRAIN_SCRATCH" not in environment_of(workload)
            continue
        own = claims[workload.identity.participant]
        assert volumes["scratch"] == {
            "name": "scratch", "persistentVolumeClaim": {"claimName": own},
        }  # fmt: skip
        assert mounts["scratch"] == {"name": "scratch", "mountPath": "/scratch"}
        assert environment_of(workload)["FEDTRAIN_SCRATCH"] == "/scratch"
        seen.add((workload.identity.role, own))
    assert seen == {
        (Role.TRAIN, "north-work"), (Role.TRAIN, "south-work"), (Role.EVALUATE, "north-work"),
    }  # fmt: skip


def test_without_a_claim_the_scratch_goes_with_the_pod():
    workload = workloads_of(everything())[Role.TRAIN]
    volumes, mounts = volumes_of(workload)
    assert volumes["scratch"] == {"name": "scratch", "emptyDir": {}}
    assert mounts["scratch"]["mountPath"] == "/scratch"
    assert environment_of(workload)["FEDTRAIN_SCRATCH"] == "/scratch"


def test_the_model_of_several_shards_is_named_by_its_index():
    world = everything(aggregation={"shards": 2}).to_the_end()
    model = world.training.status.global_model
    assert model.path == "digits-1a2b3c4d/global/1/1/model.safetensors.index.json"
    assert model.folder == "global/1/1"


def test_other_shards_act_at_the_next_aggregation_and_name_what_ran():
    world = a_world(rounds=2, aggregation={"shards": 2}).in_round(1)
    while not world.live(Role.AGGREGATE):
        world.all_succeed(Role.TRAIN)
    world.edited(aggregation={"shards": 1})
    world.all_succeed()
    assert world.record(1).status.global_model.path.endswith("/model.safetensors.index.json")
    world.to_the_end()
    assert world.record(2).status.global_model.path.endswith("/model.safetensors")


def test_the_state_of_the_server_is_part_of_the_digest_that_the_next_round_starts_from():
    world = a_world(strategy={"name": "FedAdam"}).in_round(1)
    joined = f"sha256:{'a' * 64}+sha256:{'b' * 64}"
    while not world.live(Role.AGGREGATE):
        world.all_succeed(Role.TRAIN)
    (aggregation,) = world.live(Role.AGGREGATE)
    world.becomes_ready(aggregation)
    world.succeeds(aggregation, digest=joined)
    plan = world.look()
    assert world.training.status.global_model.digest == joined
    world.settle()
    assert {w.task.model.digest for w in plan.create if w.identity.role is Role.TRAIN} == {joined}


def test_a_shard_knows_which_one_it_is_from_kubernetes():
    """The Job controller sets JOB_COMPLETION_INDEX in the pods of Indexed Jobs; we must not."""
    workload = workloads_of(everything(aggregation={"shards": 2}))[Role.AGGREGATE]
    assert "JOB_COMPLETION_INDEX" not in environment_of(workload)
    assert INDEX_ANNOTATION == "batch.kubernetes.io/job-completion-index"
