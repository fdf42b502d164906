"""What may change once a training has started, and while it is suspended."""

import copy
import dataclasses
import time
from typing import Any

import pytest

from fedoperator.api import admission

FIXED = "is fixed once the training has started; undo the change, or make another training"
SUSPENDED = "changes only while suspended; set suspend: true with the change, then false"
BIGGER = {"image": "registry.example/digits:2", "command": ["torchrun", "train.py"]}


@dataclasses.dataclass(frozen=True)
class Change:
    """spec: what changes. ours: the lines of `problems`. theirs: what the server's reply holds."""

    says: str
    spec: dict[str, Any]
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()


def fixed(field: str, value: Any) -> Change:
    line = f"spec.{field}: {FIXED}"
    return Change(f"the {field}", {field: value}, (line,), (f"spec.{field}: ", FIXED))


REFUSED = (
    fixed("selection", {"fraction": 0.5}),
    fixed("strategy", {"name": "FedAvg", "normBound": 2.0}),
    fixed("weight", {"by": "Uniform"}),
    fixed("compression", {"codec": "BFloat16"}),
    Change(
        "the precision",
        {"aggregation": {"precision": "Exact"}},
        (f"spec.aggregation.precision: {FIXED}",),
        ("spec.aggregation.precision: ", FIXED),
    ),
    fixed("personalization", {"fineTune": {}}),
    fixed("model", {"claimName": "models", "path": "a.safetensors"}),
    fixed("parameters", {"lr": 0.2}),
    fixed("exchange", {"size": "2Gi"}),
    fixed("seed", 1),
    fixed("optimizerState", "Keep"),
    fixed("security", {"runAsUser": None}),
    Change(
        "the trainer",
        {"trainer": BIGGER},
        (f"spec.trainer: {SUSPENDED}",),
        ("spec.trainer: ", SUSPENDED),
    ),
    Change(
        "the queue",
        {"scheduling": {"queueName": "team-a"}},
        (f"spec.scheduling: {SUSPENDED}",),
        ("spec.scheduling: ", SUSPENDED),
    ),
    Change(
        "a participant that is there",
        {"participants": [{"name": "west"}, {"name": "south", "trainer": {"nodes": 2}}]},
        (f"spec.participants[1]: south {SUSPENDED}",),
        ("spec.participants: ", "those that are there already change only while suspended"),
    ),
    Change(
        "the scratch of a participant",
        {"participants": [{"name": "north", "scratch": {"claimName": "n"}}, {"name": "south"}]},
        (f"spec.participants[0]: north {SUSPENDED}",),
        ("spec.participants: ", "those that are there already change only while suspended"),
    ),
    Change(
        "the resumption together with the trainer",
        {"suspend": False, "trainer": BIGGER},
        (f"spec.trainer: {SUSPENDED}",),
        ("spec.trainer: ", SUSPENDED),
    ),
)
ALLOWED = (
    Change("more rounds", {"rounds": 30}),
    Change("a stop", {"stop": {"metric": "loss", "target": 0.1, "mode": "Min"}, "evaluation": {}}),
    Change("the quorum", {"quorum": {"minimum": 2, "deadline": "5m"}}),
    Change("the retries", {"retries": 9}),
    Change("the quarantine", {"quarantine": {"after": 0}}),
    Change(
        "the aggregator's pods",
        {"aggregation": {"shards": 4, "resources": {"limits": {"memory": "4Gi"}}}},
    ),
    Change("the suspension", {"suspend": True}),
    Change("what is kept", {"keep": {"last": 9}, "history": 9}),
    Change("what is kept for being good", {"keep": {"best": 2, "metric": "f1"}, "evaluation": {}}),
    Change("an evaluator apart", {"evaluation": {"evaluator": {"name": "centre"}}}),
    Change("an evaluation", {"evaluation": {"by": "north", "every": 2}}),
    Change(
        "an added participant", {"participants": [{"name": n} for n in ("north", "south", "w")]}
    ),
    Change("a removed participant", {"participants": [{"name": "south"}]}),
    Change("one removed, one added", {"participants": [{"name": "east"}, {"name": "south"}]}),
    Change("another order", {"participants": [{"name": "south"}, {"name": "north"}]}),
    Change("the queue while suspended", {"suspend": True, "scheduling": {"queueName": "team-a"}}),
    Change("the trainer while suspended", {"suspend": True, "trainer": BIGGER}),
    Change(
        "a participant while suspended",
        {
            "suspend": True,
            "participants": [{"name": "north", "trainer": {"nodes": 2}}, {"name": "south"}],
        },
    ),
)


def each(changes: tuple[Change, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("change", changes, ids=[change.says for change in changes])


def changed(document: dict[str, Any], change: Change) -> dict[str, Any]:
    return {**copy.deepcopy(document), "spec": document["spec"] | change.spec}


@each(REFUSED)
def test_a_started_training_refuses(change, a_training, started) -> None:
    old = started(a_training(parameters={"lr": 0.1}))
    assert tuple(map(str, admission.problems(old, changed(old, change)))) == change.ours


@each(ALLOWED)
def test_a_started_training_allows(change, a_training, started) -> None:
    old = started(a_training(parameters={"lr": 0.1}))
    assert admission.problems(old, changed(old, change)) == []


@each(REFUSED)
def test_a_training_that_has_not_started_allows_everything(change, a_training) -> None:
    old = a_training(parameters={"lr": 0.1})
    assert admission.problems(old, changed(old, change)) == []


@pytest.fixture(scope="module")
def a_new_training(a_training, kubectl):
    """In the cluster, as no operator has seen it yet."""
    document = a_training(name="new", parameters={"lr": 0.1})
    code, reply = kubectl("create", "-f", "-", document=document)
    assert code == 0, reply
    return document


@pytest.fixture(scope="module")
def a_started_training(a_training, kubectl):
    document = a_training(name="started", parameters={"lr": 0.1})
    code, reply = kubectl("create", "-f", "-", document=document)
    assert code == 0, reply
    words = ("--subresource=status", "--type=merge", '-p={"status":{"round":0}}')
    code, reply = kubectl("patch", "fedt", "started", *words)
    assert code == 0, reply
    return document


@pytest.fixture
def replace(kubectl):
    """The server's answer to a change, which is not kept."""
    command = ("replace", "--dry-run=server", "--validate=strict", "-f", "-")
    return lambda document, change: kubectl(*command, document=changed(document, change))


@pytest.mark.apiserver
@each(REFUSED)
def test_the_api_server_refuses_the_same(change, a_started_training, replace) -> None:
    code, reply = replace(a_started_training, change)
    assert code == 1
    for text in change.theirs:
        assert text in reply


@pytest.mark.apiserver
@each(ALLOWED)
def test_the_api_server_allows_the_same(change, a_started_training, replace) -> None:
    code, reply = replace(a_started_training, change)
    assert code == 0, reply


@pytest.mark.apiserver
@each(REFUSED)
def test_the_api_server_allows_everything_before_the_start(change, a_new_training, replace) -> None:
    code, reply = replace(a_new_training, change)
    assert code == 0, reply


def with_scaffold(*names: str) -> dict[str, Any]:
    claims = [{"name": name, "scratch": {"claimName": f"{name}-scratch"}} for name in names]
    return {"strategy": {"name": "SCAFFOLD"}, "participants": claims}


KEEPS = (
    "with SCAFFOLD participants neither come nor go, as the server's control variate is the mean "
    "of all of theirs; undo the change, or make another training"
)
PARTIES = (("north",), ("north", "south", "west"), ("north", "west"))


@pytest.mark.parametrize("names", PARTIES)
def test_with_scaffold_participants_neither_come_nor_go(names, a_training, started) -> None:
    old = started(a_training(**with_scaffold("north", "south")))
    (problem,) = admission.problems(old, a_training(**with_scaffold(*names)))
    assert str(problem) == f"spec.participants: {KEEPS}"
    assert admission.problems(old, a_training(**with_scaffold("south", "north"))) == []


@pytest.mark.apiserver
def test_the_api_server_keeps_scaffolds_participants_too(a_training, kubectl) -> None:
    before = a_training(name="scaffold", **with_scaffold("north", "south"))
    assert kubectl("create", "-f", "-", document=before)[0] == 0
    words = ("--subresource=status", "--type=merge", '-p={"status":{"round":0}}')
    assert kubectl("patch", "fedt", "scaffold", *words)[0] == 0
    command = ("replace", "--dry-run=server", "--validate=strict", "-f", "-")
    for names in PARTIES:
        after = a_training(name="scaffold", **with_scaffold(*names))
        code, reply = kubectl(*command, document=after)
        assert code == 1
        assert KEEPS in reply
    after = a_training(name="scaffold", **with_scaffold("south", "north"))
    assert kubectl(*command, document=after)[0] == 0


COMPRESSIONS = (
    ({"codec": "Int8"}, {"codec": "Int8", "block": 512}),
    ({"codec": "Int8"}, None),
    (None, {"codec": "Int8"}),
)


@pytest.mark.parametrize(("before", "after"), COMPRESSIONS)
def test_updates_travel_in_one_way_from_the_start_to_the_end(
    before, after, a_training, started
) -> None:
    old = started(a_training(compression=before))
    (problem,) = admission.problems(old, a_training(compression=after))
    assert str(problem) == f"spec.compression: {FIXED}"
    assert admission.problems(old, a_training(compression=before)) == []


@pytest.mark.apiserver
@pytest.mark.parametrize(("before", "after"), COMPRESSIONS)
def test_the_api_server_keeps_the_compression_too(before, after, a_training, kubectl) -> None:
    name = f"travels-{COMPRESSIONS.index((before, after))}"
    assert kubectl("create", "-f", "-", document=a_training(name=name, compression=before))[0] == 0
    words = ("--subresource=status", "--type=merge", '-p={"status":{"round":0}}')
    assert kubectl("patch", "fedt", name, *words)[0] == 0
    command = ("replace", "--dry-run=server", "-f", "-")
    code, reply = kubectl(*command, document=a_training(name=name, compression=after))
    assert code == 1
    assert f"spec.compression: Invalid value: {FIXED}" in reply
    code, reply = kubectl(*command, document=a_training(name=name, compression=before, retries=5))
    assert code == 0, reply


FREE_VALUES = (
    Change("a renamed parameter", {"parameters": {"learningRate": 0.1}}),
    Change("another parameter", {"parameters": {"lr": 0.1, "b": 1}}),
    Change("a parameter less", {"parameters": {}}),
    Change("a switch that becomes a number", {"parameters": {"lr": True}}),
)


@each(FREE_VALUES)
def test_a_parameter_is_its_name_and_its_value(change, a_training, started) -> None:
    old = started(a_training(parameters={"lr": 0.1}))
    (problem,) = admission.problems(old, changed(old, change))
    assert str(problem) == f"spec.parameters: {FIXED}"


def test_true_is_not_the_number_one(a_training, started) -> None:
    old = started(a_training(parameters={"lr": 1}))
    (problem,) = admission.problems(old, changed(old, FREE_VALUES[-1]))
    assert str(problem) == f"spec.parameters: {FIXED}"


def test_the_number_one_may_be_written_with_a_point(a_training, started) -> None:
    old = started(a_training(parameters={"lr": 1}))
    assert admission.problems(old, changed(old, Change("", {"parameters": {"lr": 1.0}}))) == []


@pytest.mark.apiserver
@each(FREE_VALUES)
def test_the_policy_refuses_what_cel_does_not_see(change, a_started_training, replace) -> None:
    """Of fields it has no schema for CEL compares only names that both sides have."""
    deadline = time.monotonic() + 20
    code, reply = replace(a_started_training, change)
    while code == 0 and time.monotonic() < deadline:  # a new policy acts within seconds
        time.sleep(0.2)
        code, reply = replace(a_started_training, change)
    assert code == 1
    assert "spec.parameters: " in reply
    assert FIXED in reply


def test_a_stored_training_of_another_schema_can_be_repaired(a_training, started) -> None:
    old = started(a_training(rounds="ten"))
    assert admission.problems(old, a_training(seed=4)) == []
