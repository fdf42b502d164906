"""What `strategy(document)` reads and what it refuses, in one sentence."""

import dataclasses
from collections.abc import Mapping

import pytest

from fedtrain.strategies import STRATEGIES, Needs, strategy

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "FedAvg": {},
    "FedProx": {"mu": 0.01},
    "SCAFFOLD": {"learningRate": 1.0},
    "FedNova": {"mu": 0.0},
    "FedAvgM": {"learningRate": 1.0, "momentum": 0.9},
    "FedAdam": {"learningRate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 0.001},
    "FedYogi": {"learningRate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 0.001},
    "FedAdagrad": {"learningRate": 0.01, "beta1": 0.0, "tau": 0.001},
    "DiLoCo": {"learningRate": 0.7, "momentum": 0.9},
    "Median": {},
    "TrimmedMean": {"trim": 1},
    "Krum": {"byzantine": 1},
    "MultiKrum": {"byzantine": 1, "selected": None},
    "Bulyan": {"byzantine": 1},
    "GeometricMedian": {"iterations": 100, "epsilon": 1e-6},
    "CenteredClipping": {"radius": 10.0, "iterations": 1},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_is_left_out_takes_its_default(name: str) -> None:
    given = strategy({"name": name, **DEFAULTS[name]})
    assert strategy({"name": name}) == given
    assert given.name == name
    assert len(dataclasses.fields(given)) == len(DEFAULTS[name])  # type: ignore[arg-type]


def test_every_strategy_is_in_the_table_above() -> None:
    assert set(DEFAULTS) == set(STRATEGIES)


@pytest.mark.parametrize(
    ("document", "minimum"),
    [
        ({"name": "FedAvg"}, 1),
        ({"name": "TrimmedMean", "trim": 0}, 1),
        ({"name": "TrimmedMean", "trim": 4}, 9),
        ({"name": "Krum", "byzantine": 0}, 3),
        ({"name": "Krum", "byzantine": 2}, 7),
        ({"name": "MultiKrum", "byzantine": 2}, 7),
        ({"name": "Bulyan", "byzantine": 2}, 11),
        ({"name": "GeometricMedian"}, 1),
        ({"name": "CenteredClipping"}, 1),
    ],
)
def test_the_fewest_updates_for_which_a_rule_is_defined(
    document: Mapping[str, object], minimum: int
) -> None:
    assert strategy(document).minimum == minimum


def test_only_rules_that_need_distances_ask_for_products() -> None:
    asking = {name for name in STRATEGIES if strategy({"name": name}).needs is Needs.PRODUCTS}
    assert asking == {"Krum", "MultiKrum", "Bulyan", "GeometricMedian", "CenteredClipping"}
    assert all(strategy({"name": n}).needs is Needs.NOTHING for n in set(STRATEGIES) - asking)


def test_whole_numbers_are_numbers() -> None:
    assert strategy({"name": "DiLoCo", "learningRate": 1}) == strategy(
        {"name": "DiLoCo", "learningRate": 1.0}
    )


@pytest.mark.parametrize("value", [0, 1, 1.0, -0.1, "0.9", None, True, float("nan"), 10**400, [0]])
def test_a_number_out_of_its_range_is_refused(value: object) -> None:
    """0 is a momentum, but no learning rate; 1 is a learning rate, but no momentum."""
    for key, fits in (("learningRate", value in (1, 1.0)), ("momentum", value == 0)):
        if fits and value is not True:
            continue
        with pytest.raises(ValueError, match=rf"^strategy\.{key}: .* is not a number .*; use one"):
            strategy({"name": "DiLoCo", key: value})


@pytest.mark.parametrize("value", [-1, 1.0, 1.5, "1", True, None, 1001, 10**400, float("nan")])
def test_a_number_that_is_not_whole_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^strategy\.byzantine: .* is not a whole number from 0"):
        strategy({"name": "Krum", "byzantine": value})


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            {"name": "FedAdam", "beta1": 1.0},
            "strategy.beta1: 1.0 is not a number of at least 0 and below 1; use one, or leave it "
            "out for 0.9",
        ),
        (
            {"name": "MultiKrum", "selected": 0},
            "strategy.selected: 0 is not a whole number from 1 to 1000, or null for all but "
            "`byzantine`; use one, or leave it out for its default",
        ),
        (
            {"name": "Krum", "f": 1},
            "strategy.f: Krum has no such parameter; it has byzantine",
        ),
        (
            {"name": "FedAvg", "learningRate": 1.0},
            "strategy.learningRate: FedAvg has no such parameter; it has none",
        ),
        (
            {"name": "FedAvgM", "learning_rate": 1.0},
            "strategy.learning_rate: FedAvgM has no such parameter; it has learningRate, momentum",
        ),
    ],
)
def test_a_refusal_names_the_field_the_value_and_the_remedy(
    document: Mapping[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=r"^strategy\.") as refused:
        strategy(document)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("name", [None, "fedavg", "", 3, ["FedAvg"], {}])
def test_another_name_is_refused_with_those_there_are(name: object) -> None:
    with pytest.raises(ValueError, match=r"^strategy\.name: .* is not one of FedAvg, FedProx"):
        strategy({"name": name})


def test_a_document_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^strategy\.name: None is not one of"):
        strategy({})
