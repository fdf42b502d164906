"""Whom the pods of a training may talk to."""

import pytest
from policies import Pod, may_connect
from staying import a_staying_world
from world import World, a_world

from fedoperator.rounds import jobs
from fedtrain.contract import HUB_PORT, Role

HOME, SYSTEM = "default", "fedtrain"
OPERATOR = Pod(SYSTEM, {"fedtrain.dev/component": "operator"})
STRANGER = Pod(HOME, {"app": "web"})
OF_TWO_NODES = [
    {"name": "north", "trainer": {"nodes": 2}},
    {"name": "south", "trainer": {"nodes": 2}},
]


def made(world: World) -> tuple[list[dict], dict[tuple[Role, str], Pod]]:
    """All policies, and a pod of everybody who was ever asked for."""
    policies, pods = {}, {}
    for identity, workload in world.made.items():
        for document in jobs.objects(workload, "controller", SYSTEM):
            if document["kind"] == "NetworkPolicy":
                policies[document["metadata"]["name"]] = document
        template = jobs.job(workload, "controller")["spec"]["template"]
        labels = template["metadata"]["labels"]
        pods[identity.role, identity.participant] = Pod(HOME, labels)
    return list(policies.values()), pods


def finished(**changes) -> tuple[list[dict], dict[tuple[Role, str], Pod]]:
    return made(a_world(2).edited(rounds=1, evaluation={}, **changes).to_the_end())


def test_nodes_of_one_participant_talk_to_each_other_and_to_nobody_else():
    policies, pods = finished(participants=OF_TWO_NODES)
    north, south = pods[Role.TRAIN, "north"], pods[Role.TRAIN, "south"]
    assert may_connect(policies, north, north, 29500)
    assert may_connect(policies, north, north, 41234), "NCCL and gloo choose their ports"
    for one, other in ((north, south), (south, north), (north, STRANGER), (STRANGER, north)):
        assert not may_connect(policies, one, other, 29500)
    same_name_elsewhere = Pod("elsewhere", north.labels)
    assert not may_connect(policies, north, same_name_elsewhere, 29500)
    assert not may_connect(policies, same_name_elsewhere, north, 29500)
    other_training = Pod(HOME, {**north.labels, "fedtrain.dev/training": "another"})
    assert not may_connect(policies, other_training, north, 29500)


def test_of_single_nodes_no_pod_reaches_another():
    policies, pods = finished()
    assert len(pods) > 4
    for one in (*pods.values(), STRANGER, OPERATOR):
        for other in pods.values():
            assert not may_connect(policies, one, other, 29500), (one, other)
    assert may_connect(policies, STRANGER, OPERATOR, 443), "it is not the training's business"


def test_everybody_may_ask_for_names_and_for_nothing_outside():
    policies, pods = finished()
    dns, internet = Pod("kube-system", {"k8s-app": "kube-dns"}), Pod("", None, "93.184.216.34")
    for pod in pods.values():
        assert may_connect(policies, pod, dns, 53, "UDP")
        assert may_connect(policies, pod, dns, 53)
        assert not may_connect(policies, pod, dns, 443)
        assert not may_connect(policies, pod, internet, 443)
        assert not may_connect(policies, pod, internet, 53, "UDP")


def test_egress_allows_a_store_to_participants_alone():
    allowed = [{"cidr": "10.20.0.0/16", "ports": [443]}, {"cidr": "192.0.2.7/32"}]
    policies, pods = finished(network={"egress": allowed})
    store, other = Pod("", None, "10.20.3.4"), Pod("", None, "10.21.0.1")
    north, aggregator = pods[Role.TRAIN, "north"], pods[Role.AGGREGATE, ""]
    assert may_connect(policies, north, store, 443)
    assert not may_connect(policies, north, store, 80)
    assert not may_connect(policies, north, other, 443)
    assert may_connect(policies, north, Pod("", None, "192.0.2.7"), 8080, "UDP")
    assert not may_connect(policies, aggregator, store, 443)


def test_the_hub_hears_participants_and_the_operator_on_its_port_alone():
    policies, pods = made(a_staying_world(2, rounds=1).in_round(1))
    hub, north = pods[Role.PREPARE, ""], pods[Role.TRAIN, "north"]
    assert may_connect(policies, north, hub, HUB_PORT)
    assert may_connect(policies, OPERATOR, hub, HUB_PORT)
    for one, port in ((north, 22), (OPERATOR, 22), (STRANGER, HUB_PORT)):
        assert not may_connect(policies, one, hub, port)
    assert not may_connect(policies, hub, north, 29500)
    assert not may_connect(policies, Pod(SYSTEM, {"app": "web"}), hub, HUB_PORT)
    impostor = Pod(HOME, {"fedtrain.dev/component": "operator"})
    assert not may_connect(policies, impostor, hub, HUB_PORT)


def test_policy_none_makes_none():
    policies, _ = finished(network={"policy": "None"}, participants=OF_TWO_NODES)
    assert policies == []


def test_policies_come_before_the_first_pod_and_are_the_trainings_own():
    world = a_world(2).settle()
    (prepare,) = world.made.values()
    first, *_, job = jobs.objects(prepare, "controller", SYSTEM)
    assert (first["kind"], job["kind"]) == ("NetworkPolicy", "Job")
    assert first["metadata"]["ownerReferences"] == job["metadata"]["ownerReferences"]
    assert first["spec"]["podSelector"] == {"matchLabels": {"fedtrain.dev/training": "digits"}}


@pytest.mark.parametrize(
    ("policy", "said", "helped"),
    [
        ("Strict", "ConnectTimeoutError: 10.1.2.3 timed out", True),
        ("None", "ConnectTimeoutError: 10.1.2.3 timed out", False),
        ("Strict", "ZeroDivisionError: division by zero", False),
    ],
)
def test_a_script_that_cannot_connect_is_told_what_allows_it(policy, said, helped):
    world = a_world(2, network={"policy": policy}).in_round(1)
    identity = world.live(Role.TRAIN)[0]
    world.fails(identity)
    object.__setattr__(world.jobs[identity].trouble, "message", said)
    world.settle()
    failure = world.participant(identity.participant).last_failure
    assert ("spec.network.egress" in failure) == helped
