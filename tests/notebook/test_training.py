"""The resource from objects: the one that YAML would have given, with the same sentences."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedoperator.api import admission, crd
from fedoperator.api.training import Data, Participant, Quorum, TrainingSpec
from fedoperator.notebook import FederatedTraining, Invalid
from fedoperator.notebook.document import plain
from tests.api.test_refusals import MISTAKES

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/federation.yaml"))
SPEC = {
    "rounds": 3,
    "trainer": {"image": "i", "command": ["c"], "processesPerNode": 2},
    "participants": [{"name": "north", "data": {"claimName": "d"}}, {"name": "south"}],
    "exchange": {"size": "1Gi"},
    "quorum": {"onMiss": "Fail"},
}


def a_document(*, name: str = "digits", **spec: Any) -> dict[str, Any]:
    """As YAML gives it; what is given replaces a field of its spec."""
    default = {
        "rounds": 3,
        "trainer": {"image": "registry.example/digits:1", "command": ["torchrun", "train.py"]},
        "participants": [{"name": "north"}, {"name": "south"}],
        "exchange": {"size": "1Gi"},
    }
    return {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": name},
        "spec": default | spec,
    }


WAYS = {
    "camelCase": SPEC,
    "snake_case": {
        **SPEC,
        "trainer": {"image": "i", "command": ("c",), "processes_per_node": 2},
        "participants": ({"name": "north", "data": {"claim_name": "d"}}, "south"),
        "quorum": {"on_miss": "Fail"},
    },
    "objects": {
        **SPEC,
        "participants": [
            Participant(name="north", data=Data(claim_name="d")),
            Participant(name="south"),
        ],
        "quorum": Quorum(on_miss="Fail"),
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_spelled_it_is_one_training(way: str) -> None:
    training = FederatedTraining("digits", **WAYS[way])
    assert training == FederatedTraining("digits", **SPEC)
    assert yaml.safe_load(training.to_yaml()) == {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": "digits"},
        "spec": SPEC,
    }


def test_the_keys_of_free_mappings_stay_as_they_are() -> None:
    training = FederatedTraining(
        "digits",
        **SPEC
        | {
            "parameters": {"local_epochs": 5, "nested": {"on_miss": 1}},
            "trainer": {
                "image": "i",
                "command": ["c"],
                "node_selector": {"gpu_kind": "h100"},
                "resources": {"limits": {"example.com/my_gpu": 1}},
            },
        },
    )
    document = training.document["spec"]
    assert document["parameters"] == {"local_epochs": 5, "nested": {"on_miss": 1}}
    assert document["trainer"]["nodeSelector"] == {"gpu_kind": "h100"}
    assert document["trainer"]["resources"]["limits"] == {"example.com/my_gpu": 1}


def test_numbers_of_numpy_and_paths_are_numbers_and_texts() -> None:
    given = {"lr": np.float32(0.5), "epochs": np.int64(5), "on": np.True_, "at": np.arange(2)}
    training = FederatedTraining("digits", **SPEC | {"parameters": {**given, "to": Path("/a")}})
    expected = {"lr": 0.5, "epochs": 5, "on": True, "at": [0, 1], "to": "/a"}
    assert training.spec.parameters == expected
    assert yaml.safe_load(training.to_yaml())["spec"]["parameters"] == expected


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"quorum": {"onMiss": "Fail", "on_miss": "Retry"}},
            "spec: on_miss and onMiss are one field; give it once",
        ),
        (
            {"parameters": {"model": object()}},
            "spec: a object cannot be written as YAML; give texts, numbers, lists and mappings",
        ),
        ({"parameters": {1: 2}}, "spec: 1 is not a text; the keys of mappings are texts"),
    ],
)
def test_what_yaml_could_not_say_is_one_sentence(spec: dict, sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        FederatedTraining("digits", **SPEC | spec)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.says)
def test_a_mistake_gets_the_sentence_that_validate_says(mistake) -> None:
    document = a_document(**mistake.spec)
    with pytest.raises(Invalid) as of_yaml:
        FederatedTraining.from_yaml(yaml.safe_dump(document))
    assert tuple(str(of_yaml.value).splitlines()) == mistake.ours
    try:
        spelled = plain(document["spec"], crd.spec_schema())
    except ValueError:
        return  # YAML can say what JSON cannot, and Python need not
    if spelled == document["spec"]:  # not one that is no mistake in Python
        with pytest.raises(Invalid) as of_objects:
            FederatedTraining("digits", **document["spec"])
        assert tuple(str(of_objects.value).splitlines()) == mistake.ours


def test_a_name_that_cannot_be_is_told() -> None:
    with pytest.raises(Invalid) as refused:
        FederatedTraining("Digits!", **SPEC)
    document = a_document(name="Digits!")
    assert str(refused.value) == str(admission.problems(None, document)[0])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_yaml_goes_in_and_comes_out(path: Path) -> None:
    training = FederatedTraining.from_yaml(path)
    assert yaml.safe_load(training.to_yaml()) == yaml.safe_load(path.read_text())
    assert FederatedTraining.from_yaml(training.to_yaml()) == training
    assert FederatedTraining(training.name, **training.document["spec"]) == training


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nowhere.yaml", "nowhere.yaml cannot be read: No such file or directory; check the path"),
        ("a: [\n", "the text is not YAML in line 2, column 1"),
        ("{}", "apiVersion: is missing; write fedtrain.dev/v1alpha1"),
    ],
)
def test_what_is_no_training_is_one_sentence(source: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        FederatedTraining.from_yaml(source)
    assert str(refused.value).startswith(sentence)


def test_replace_makes_another_one() -> None:
    training = FederatedTraining("digits", **SPEC)
    more = training.replace(rounds=9, quorum={"on_miss": "Retry"})
    assert (training.spec.rounds, more.spec.rounds) == (3, 9)
    assert more.spec.quorum.on_miss == "Retry"
    with pytest.raises(Invalid, match=r"spec\.rounds: 0 is too small"):
        training.replace(rounds=0)


def test_help_shows_every_field_of_the_spec() -> None:
    names = list(inspect.signature(FederatedTraining).parameters)
    assert names == ["name", *TrainingSpec.model_fields]


def test_its_table_shows_texts_and_no_markup() -> None:
    trainer = {"image": "i", "command": ["python", "<script>alert(1)</script>"]}
    table = FederatedTraining("digits", **SPEC | {"trainer": trainer})._repr_html_()
    assert "<script>" not in table
    assert "python &lt;script&gt;alert(1)" in table
    assert "3 rounds of FedAvg" in table


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import fedoperator", ("pydantic", "yaml", "kubernetes", "numpy")),
        ("from fedoperator import FederatedTraining", ("kubernetes", "matplotlib", "torch")),
    ],
)
def test_imports_bring_only_what_they_need(statement: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{root / 'operator'}:{root / 'trainer'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
