"""Participants who mean harm, on the real cluster; and one aggregation done by two pods."""

import pathlib

import pytest
import yaml
from federation import NAMESPACE, pods, reaches, record_of

from devcluster import stack

pytestmark = pytest.mark.cluster

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "04-untrusted"
REASONS = ("NotFinite", "DigestMismatch", "BaseMismatch", "ReceiptInvalid", "NotARegularFile")
"""Why mallory's update of each round is refused, in the order of forge.py's lies."""


def the_example(name: str, image: str, shards: int) -> dict:
    federation = yaml.safe_load((EXAMPLE / "federation.yaml").read_text())
    federation["metadata"] = {"name": name, "namespace": NAMESPACE}
    spec = federation["spec"]
    spec["aggregation"]["shards"] = shards
    spec["trainer"] |= {
        "image": image,
        "command": ["python", "/code/train.py"],
        "volumes": [{"name": "code", "mountPath": "/code", "configMap": {"name": "untrusted"}}],
    }
    mallory = next(p for p in spec["participants"] if p["name"] == "mallory")
    mallory["trainer"]["command"] = ["python", "/code/forge.py"]
    return federation


@pytest.fixture(scope="module")
def by_two_pods(installed: stack.Images) -> dict:
    scripts = {name: (EXAMPLE / name).read_text() for name in ("train.py", "forge.py")}
    stack.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "untrusted", "namespace": NAMESPACE},
            "data": scripts,
        }
    )
    stack.apply(the_example("untrusted", installed.digits, shards=2))
    return reaches("untrusted", "Succeeded", seconds=400)


def test_a_forger_is_dropped_by_name_while_the_others_finish(by_two_pods):
    assert by_two_pods["globalModel"]["round"] == len(REASONS)
    for number, reason in enumerate(REASONS, 1):
        participants = record_of("untrusted", number)["status"]["participants"]
        states = {p["name"]: (p["state"], p.get("reason", "")) for p in participants}
        assert states.pop("mallory") == ("Rejected", reason), (number, states)
        assert {state for state, _ in states.values()} == {"Accepted"}


def test_a_robust_strategy_keeps_well_formed_harm_out(by_two_pods):
    assert by_two_pods["metrics"]["accuracy"] > 0.9


def test_two_aggregator_pods_did_the_work(by_two_pods):
    names = [p["metadata"]["name"] for p in pods("untrusted", "fedtrain.dev/role=aggregate")]
    first = [name for name in names if "-aggregate-5-" in name]
    assert len(first) == 2, names


def test_one_pod_gives_the_same_bytes(by_two_pods, installed):
    stack.apply(the_example("untrusted-alone", installed.digits, shards=1))
    alone = reaches("untrusted-alone", "Succeeded", seconds=400)
    assert alone["globalModel"]["digest"] == by_two_pods["globalModel"]["digest"]
