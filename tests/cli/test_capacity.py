"""What a cluster cannot give, said of a cluster that is only values."""

from decimal import Decimal
from typing import Any

from fedoperator.api.training import Training, TrainingSpec
from fedoperator.cli import capacity, changes
from fedoperator.cli.capacity import Cluster
from fedoperator.rounds import forecast, sizes


def short(cluster: Cluster, **changes: Any) -> list[str]:
    spec: dict[str, Any] = {
        "rounds": 2,
        "trainer": {
            "image": "x",
            "command": ["train"],
            "resources": {"requests": {"cpu": "2", "memory": "4Gi"}},
        },
        "participants": [{"name": "a"}, {"name": "b"}],
        "exchange": {"claimName": "shared"},
    }
    training = Training(
        name="digits",
        namespace="default",
        uid="0",
        generation=1,
        spec=TrainingSpec.model_validate(spec | changes),
    )
    needs = forecast.forecast(training.spec, "digits", sizes.of_count(10**6))
    return list(capacity.shortfalls(training, needs, cluster))


def node(**room: str) -> dict[str, Decimal]:
    return {name.replace("_", "/"): forecast.quantity(amount) for name, amount in room.items()}


ENOUGH = node(cpu="8", memory="16Gi")


def test_a_cluster_with_everything_lacks_nothing() -> None:
    assert short(Cluster(nodes=(ENOUGH,), claims=frozenset({"shared"}))) == []


def test_what_may_not_be_seen_is_not_missing() -> None:
    assert short(Cluster()) == []


def test_a_pod_that_fits_no_node_names_what_it_lacks() -> None:
    small = node(cpu="8", memory="2Gi")
    (a, b) = short(Cluster(nodes=(small, small)))
    assert a == "no node has memory 4 GiB for a pod of a; ask for less, or add such a node"
    assert "a pod of b" in b


def test_two_halves_on_two_nodes_are_no_room() -> None:
    lacking = short(Cluster(nodes=(node(cpu="8", memory="1Gi"), node(cpu="1", memory="8Gi"))))
    assert lacking[0].startswith("no node has cpu 2, memory 4 GiB for a pod of a")


def test_a_cluster_without_a_default_class_needs_one_named() -> None:
    size = {"exchange": {"size": "1Gi"}}
    told = "there is no default StorageClass; set exchange.storageClassName"
    claims: frozenset[str] = frozenset()
    assert short(Cluster(claims=claims, classes={"slow": False}), **size) == [told]
    assert short(Cluster(claims=claims, classes={"slow": True}), **size) == []
    made = frozenset({"digits-exchange"})
    assert short(Cluster(claims=made, classes={"slow": False}), **size) == []


def test_a_quota_that_is_used_up_is_said() -> None:
    quota = ("team", node(**{"requests.cpu": "10"}), node(**{"requests.cpu": "7"}))
    (told,) = short(Cluster(quotas=(quota,)))
    assert told.startswith("the quota team leaves 3 requests.cpu, and 4 are held")


def test_a_quota_of_jobs_counts_those_that_are_over_too() -> None:
    quota = ("team", node(**{"count/jobs.batch": "4"}), node())
    (told,) = short(Cluster(quotas=(quota,)))
    assert told.startswith("the quota team leaves 4 count/jobs.batch, and ")


def test_changes_compare_named_entries_by_name() -> None:
    old = {"participants": [{"name": "a"}, {"name": "b", "nodes": 1}], "seed": 1, "stop": None}
    new = {"participants": [{"name": "b", "nodes": 2}, {"name": "c"}], "seed": True}
    told = [changes.line(*change) for change in changes.between(old, new)]
    assert told == [
        'spec.participants[a]: no longer {"name": "a"}',
        "spec.participants[b].nodes: 1 → 2",
        'spec.participants[c]: now {"name": "c"}',
        "spec.seed: 1 → true",
    ]
