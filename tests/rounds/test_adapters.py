"""What workloads are told of adapters, and where they see the base model."""

from world import World, a_world

from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import jobs
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import Role

DIGEST = "sha256:" + "7" * 64
PARTICIPANTS = [
    {"name": "north", "adapterRank": 2},
    {"name": "south", "base": {"claimName": "southern-llama", "path": "v2"}},
    {"name": "west"},
]


def a_federation(**base: str) -> World:
    """Products of adapters of rank 8, north's of rank 2; south has its own copy of the base."""
    model = {"init": {}, "base": {"claimName": "llama", **base}}
    adapters = {"aggregation": "Product", "rank": 8}
    world = a_world(model=model, adapters=adapters, rounds=2)
    return world.edited(participants=PARTICIPANTS)


def made(world: World, role: Role) -> dict[str, Workload]:
    return {i.participant: w for i, w in world.made.items() if i.role is role}


def base_of(workload: Workload) -> tuple[dict, dict, str]:
    """(volume, mount, FEDTRAIN_BASE) of a participant's pod."""
    pod = jobs.objects(workload, "controller")[-1]["spec"]["template"]["spec"]
    (volume,) = (v for v in pod["volumes"] if v["name"] == "base")
    (container,) = pod["containers"]
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "base")
    (folder,) = (e["value"] for e in container["env"] if e["name"] == "FEDTRAIN_BASE")
    return volume, mount, folder


def test_who_initialises_makes_the_global_adapter_and_each_trains_one_of_its_own_rank():
    world = a_federation().to_the_end()
    (init,) = made(world, Role.INIT).values()
    assert init.identity.participant == "north"
    assert init.task.adapters == {"aggregation": "Product", "rank": 8}
    trained = made(world, Role.TRAIN)
    ranks = {name: workload.task.adapters["rank"] for name, workload in trained.items()}
    assert ranks == {"north": 2, "south": 8, "west": 8}
    (aggregation,) = made(world, Role.AGGREGATE).values()
    assert aggregation.task.adapters == {"aggregation": "Product", "ranks": {"north": 2}}


def test_without_adapters_nobody_is_told_of_any():
    world = a_world(rounds=1).to_the_end()
    for workload in world.made.values():
        assert getattr(workload.task, "adapters", None) is None
        assert "FEDTRAIN_BASE" not in jobs.environment(workload, "/fedtrain")


def test_every_participant_sees_a_base_model_read_only_its_own_copy_if_it_has_one():
    world = a_federation().to_the_end()
    for role in (Role.INIT, Role.TRAIN):
        volume, mount, folder = base_of(made(world, role)["north"])
        assert volume["persistentVolumeClaim"] == {"claimName": "llama", "readOnly": True}
        assert mount == {"name": "base", "mountPath": "/fedtrain/base", "readOnly": True}
        assert folder == "/fedtrain/base"
    volume, _, folder = base_of(made(world, Role.TRAIN)["south"])
    assert volume["persistentVolumeClaim"]["claimName"] == "southern-llama"
    assert folder == "/fedtrain/base/v2"


def test_the_aggregator_sees_no_base_model():
    world = a_federation().to_the_end()
    for workload in made(world, Role.AGGREGATE).values():
        pod = jobs.objects(workload, "controller")[-1]["spec"]["template"]["spec"]
        assert not [v for v in pod["volumes"] if v["name"] == "base"]


def test_a_digest_that_the_spec_says_is_told_to_everybody():
    world = a_federation(digest=DIGEST).to_the_end()
    for role in (Role.INIT, Role.TRAIN):
        assert {w.task.base for w in made(world, role).values()} == {DIGEST}
    assert world.training.status.global_model.base_model == DIGEST


def test_a_digest_that_was_learned_is_recorded_with_every_model_from_then_on():
    world = a_federation().settle()
    while not world.live(Role.INIT):
        world.all_succeed()
    (init,) = world.live(Role.INIT)
    world.succeeds(init, base_model=DIGEST)
    world.to_the_end()
    assert world.training.status.global_model.round == 2
    assert world.training.status.global_model.base_model == DIGEST
    assert world.record(0).status.global_model.base_model == DIGEST
    assert TrainingSpec.model_validate(world.training.spec.to_dict()) == world.training.spec


def test_what_is_no_digest_is_not_recorded_as_one():
    world = a_federation().settle()
    while not world.live(Role.INIT):
        world.all_succeed()
    world.succeeds(world.live(Role.INIT)[0], base_model="<script>")
    world.settle()
    assert world.record(0).status.global_model.base_model is None


def test_how_far_off_the_products_are_stands_in_the_record():
    world = a_federation().in_round(1)
    world.all_succeed(Role.TRAIN)
    world.succeeds(world.live(Role.AGGREGATE)[0], residual=0.25)
    world.settle()
    assert world.record(1).status.measured.residual == 0.25
