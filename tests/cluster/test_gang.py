"""`scheduling.gang`: pods of a participant start together, or none of them."""

import asyncio
import time
from datetime import timedelta

import pytest

from benchmarks.operated.world import claim
from devcluster import played, settings
from fedoperator import errors
from fedoperator.cluster import api
from fedoperator.rounds import jobs
from fedtrain.contract import Role
from tests.cluster.stage import Died, Stage, a_training
from tests.pods import rendering

pytestmark = pytest.mark.apiserver

GANG = {"scheduling": {"gang": True}, "rounds": 1, "quorum": {"minimum": 1}}
NORTH = "digits-train-1-north-1"
PATIENCE = 30.0


def with_nodes(nodes: int, *names: str) -> dict:
    """A training whose participants have that many pods each."""
    training = a_training(names, **GANG)
    training["spec"]["trainer"] |= {"nodes": nodes, "resources": {"requests": {"cpu": "1"}}}
    return training


async def to_training(stage: Stage) -> None:
    """Until the participants' Jobs of round 1 are there."""
    for _ in range(5):
        await stage.settle()
        if any("-train-1-" in name for name in await stage.jobs()):
            return
        await stage.work_off()
    raise AssertionError(f"no participant was ever invited: {await stage.status()}")


@pytest.fixture
async def served(stage: Stage) -> bool:
    try:
        await stage.api.request("GET", "/apis/scheduling.k8s.io/v1beta1")
    except errors.Gone:
        return False
    return True


async def groups(stage: Stage) -> dict[str, dict]:
    found = await stage.api.request("GET", stage.path("podgroups"))
    return {group["metadata"]["name"]: group for group in found["items"]}


async def test_every_job_of_several_pods_has_a_podgroup_that_goes_with_it(stage, served):
    if not served:
        pytest.skip("this Kubernetes serves no PodGroups")
    await stage.apply(with_nodes(2, "north", "south"))
    await to_training(stage)
    there, jobs = await groups(stage), await stage.jobs()
    assert there.keys() == {NORTH, "digits-train-1-south-1", "digits-init-0-north-1"}
    pod, group = jobs[NORTH]["spec"]["template"]["spec"], there[NORTH]
    assert pod["schedulingGroup"] == {"podGroupName": NORTH}
    assert group["spec"]["schedulingPolicy"] == {"gang": {"minCount": 2}}
    (owner,) = group["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", jobs[NORTH]["metadata"]["uid"])


async def test_a_single_pod_needs_none(stage, served):
    if not served:
        pytest.skip("this Kubernetes serves no PodGroups")
    await stage.apply(with_nodes(1, "north"))
    await to_training(stage)
    assert await groups(stage) == {}


@pytest.mark.parametrize("replied", [False, True])
async def test_an_operator_that_died_between_the_two_makes_it_at_its_next_look(
    stage, served, replied
):
    """Or finds that it was made, where the reply was lost."""
    if not served:
        pytest.skip("this Kubernetes serves no PodGroups")
    await stage.apply(with_nodes(2, "north"))
    while NORTH not in await stage.jobs():
        stage.dies_after = stage.writes + 1
        try:
            await stage.look()
        except Died:
            stage.restart()
        if NORTH not in await stage.jobs():
            stage.dies_after = None
            await stage.work_off()
    assert NORTH not in await groups(stage)
    stage.dies_after = None
    await stage.settle()
    if replied:
        stage.restart()
        await stage.settle()
    assert NORTH in await groups(stage)
    assert any(v.startswith("GET") and "podgroups" in v for v in stage.tried) is replied


async def test_a_name_that_is_taken_is_told_and_tried_again(stage, served):
    if not served:
        pytest.skip("this Kubernetes serves no PodGroups")
    foreign = {
        "metadata": {"name": NORTH},
        "spec": {"schedulingPolicy": {"gang": {"minCount": 1}}},
    }
    await stage.api.request("POST", stage.path("podgroups"), foreign)
    await stage.apply(with_nodes(2, "north"))
    await to_training(stage)
    again = (await stage.look()).wake_at
    assert again is not None
    assert again <= stage.clock() + timedelta(seconds=31)
    asked = stage.tried[f"POST {stage.path('podgroups')}"]
    await stage.look()
    assert stage.tried[f"POST {stage.path('podgroups')}"] == asked + 1
    assert [reason for reason, _ in await stage.events()].count("NameTaken") == 1


async def test_a_cluster_without_them_is_told_about_and_the_training_goes_on(stage, served):
    if served:
        pytest.skip("this Kubernetes serves PodGroups; `make older` has one that does not")
    await stage.apply(with_nodes(2, "north"))
    await to_training(stage)
    await stage.settle()
    told = [message for reason, message in await stage.events() if reason == "GangUnavailable"]
    assert len(told) == 1
    assert "schedulingGroup" not in (await stage.jobs())[NORTH]["spec"]["template"]["spec"]


@pytest.mark.parametrize(("gang", "waiting"), [(True, 2), (False, 1)])
async def test_a_real_scheduler_places_a_whole_participant_or_nothing_of_it(
    tmp_path, gang, waiting
):
    """Room for three pods, and two participants of two: one waits with both, or with one."""
    if settings.settings().kubernetes:
        pytest.skip("this Kubernetes has no scheduler that knows PodGroups")
    audit = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "None"}]}
    with played.control_plane([], audit, tmp_path, gangs=True) as cluster:
        session = api.Api(await api.configuration(cluster.kubeconfig))
        try:
            stage = Stage(session, namespace="ours")
            await stage.open()
            await a_node(session)
            for document in claim("exchange", namespace=stage.namespace):
                kind = document["kind"].lower() + "s"
                path = (
                    stage.path(kind) if "namespace" in document["metadata"] else f"/api/v1/{kind}"
                )
                await session.request("POST", path, document)
            for job in jobs_of(gang):
                made = await session.request("POST", stage.path("jobs"), job)
                group = jobs.pod_group(made)
                assert (group is not None) is gang
                if group is not None:
                    await session.request("POST", stage.path("podgroups"), group)
            placed, unplaced = await told_of_all(stage, of=4)
            assert len(unplaced) == waiting
            assert (
                len({pod["metadata"]["labels"]["fedtrain.dev/participant"] for pod in unplaced})
                == 1
            )
            assert len(placed) == 4 - waiting
        finally:
            await session.close()


def jobs_of(gang: bool) -> list[dict]:
    """Those of two participants, as the operator renders them; nobody owns them here."""
    document = with_nodes(2, "north", "south")
    document["spec"] |= {"exchange": {"claimName": "exchange"}, "scheduling": {"gang": gang}}
    found = [
        rendering.job_of(made)
        for made in rendering.workloads(rendering.training_of(document))
        if made.identity.role is Role.TRAIN
    ]
    for job in found:
        del job["metadata"]["ownerReferences"]
    return found


async def a_node(session: api.Api) -> None:
    """Ready, with room for three pods of one core, and no kubelet."""
    name, room = {"name": "played"}, {"cpu": "3", "memory": "64Gi", "pods": "30"}
    node = await session.request("POST", "/api/v1/nodes", {"metadata": name})
    node["spec"].pop("taints", None)  # admission puts it on every new node
    node = await session.request("PUT", "/api/v1/nodes/played", node)
    ready = [{"type": "Ready", "status": "True"}]
    node["status"] = {"allocatable": room, "capacity": room, "conditions": ready}
    await session.request("PUT", "/api/v1/nodes/played/status", node)


async def told_of_all(stage: Stage, of: int) -> tuple[list[dict], list[dict]]:
    """The pods with a node, and those of which the scheduler says that there is no room."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        pods = (await stage.api.request("GET", stage.path("pods")))["items"]
        told = [p for p in pods if p["status"].get("conditions")]
        if len(told) == of:
            placed = [p for p in told if "nodeName" in p["spec"]]
            return placed, [p for p in told if "nodeName" not in p["spec"]]
        await asyncio.sleep(0.2)
    raise AssertionError(
        f"the scheduler said nothing of some of {[p['metadata']['name'] for p in pods]}"
    )
