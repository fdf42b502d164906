"""The operator's table of strategies and codecs says what the aggregator's own files say."""

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from fedoperator.api import crd
from fedoperator.api.aggregation import INT8_BLOCKS, Compression
from fedoperator.api.strategy import COORDINATEWISE, DEFAULTS, LEAST, NAMES, PARAMETERS, Strategy
from fedtrain import codecs, strategies
from tests.api.strategies import STRATEGIES, VALUES

EACH = pytest.mark.parametrize("name", NAMES)


def settings_of(strategy: strategies.Strategy) -> dict[str, Any]:
    """Everything that the aggregator's strategy was made with."""
    slots = [n for kind in type(strategy).__mro__ for n in getattr(kind, "__slots__", ())]
    return {"name": strategy.name} | {
        name: getattr(strategy, name) for name in (*slots, *getattr(strategy, "__dict__", ()))
    }


@given(STRATEGIES)
def test_every_strategy_that_can_be_asked_for_is_there(document: dict[str, Any]) -> None:
    asked = Strategy.model_validate(document)
    there = strategies.strategy(asked.document)
    assert set(strategies.STRATEGIES) == set(NAMES)
    assert there.name == asked.name
    assert there.minimum == asked.minimum
    assert there.coordinatewise == (asked.name in COORDINATEWISE)


@EACH
def test_whatever_the_api_admits_the_aggregator_takes(name: str) -> None:
    """At the least and at the most that each parameter may be."""
    properties = crd.spec_schema()["properties"]["strategy"]["properties"]
    for parameter in DEFAULTS[name]:
        schema = properties[to_camel(parameter)]
        least, most = schema["minimum"], schema["maximum"]
        if schema.get("exclusiveMinimum"):
            least = LEAST.get(parameter, math.nextafter(least, math.inf))
        if schema.get("exclusiveMaximum"):
            most = math.nextafter(most, -math.inf)
        for value in (least, most):
            asked = Strategy.model_validate({"name": name, to_camel(parameter): value})
            assert strategies.strategy(asked.document).name == name


@EACH
def test_the_defaults_are_those_of_the_aggregator(name: str) -> None:
    resolved = strategies.strategy(Strategy(name=name).document)
    assert settings_of(resolved) == settings_of(strategies.strategy({"name": name}))


@given(STRATEGIES, st.data())
def test_what_is_given_arrives(document: dict[str, Any], data: st.DataObject) -> None:
    """Another value of any parameter makes another strategy."""
    own = [p for p in DEFAULTS[document["name"]] if p != "mu"]  # the participants' business
    assume(own)
    parameter = data.draw(st.sampled_from(own))
    other = data.draw(VALUES[parameter])
    asked = Strategy.model_validate(document)
    assume(other != asked.parameter(parameter))
    changed = asked.model_copy(update={parameter: other})
    before, after = (strategies.strategy(s.document) for s in (asked, changed))
    assert settings_of(before) != settings_of(after)


@pytest.mark.parametrize(
    ("name", "parameter"), [(n, p) for n in NAMES for p in PARAMETERS if p not in DEFAULTS[n]]
)
def test_a_parameter_of_another_is_refused_by_both(name: str, parameter: str) -> None:
    whole = ("trim", "byzantine", "selected", "iterations")
    document = {"name": name, to_camel(parameter): 3 if parameter in whole else 0.5}
    with pytest.raises(ValueError, match=to_camel(parameter)):
        strategies.strategy(document)
    with pytest.raises(ValueError, match="not a parameter of"):
        Strategy.model_validate(document)


@EACH
def test_the_description_of_a_parameter_says_for_whom_it_is_and_what_it_is_if_left_out(
    name: str,
) -> None:
    for parameter, default in DEFAULTS[name].items():
        description = " ".join((Strategy.model_fields[parameter].description or "").split())
        whom, left_out = description.split("Left out: ")
        assert name in whom.split(":")[0].split(", ")
        assert default is None or str(default) in left_out


def test_a_strategy_is_told_to_the_aggregator_with_every_parameter() -> None:
    assert Strategy(name="FedAdam", tau=0.1).document == {
        "name": "FedAdam",
        "learningRate": 0.01,
        "beta1": 0.9,
        "beta2": 0.99,
        "tau": 0.1,
    }
    assert Strategy(name="MultiKrum").document == {"name": "MultiKrum", "byzantine": 1}


COMPRESSIONS = st.one_of(
    st.just(Compression(codec="BFloat16")),
    st.builds(Compression, codec=st.just("Int8"), block=st.none() | st.sampled_from(INT8_BLOCKS)),
    st.builds(
        Compression,
        codec=st.just("TopK"),
        block=st.none() | st.integers(1024, 65536),
        fraction=st.none() | st.floats(1e-6, 1),
    ),
)


@given(COMPRESSIONS)
def test_every_codec_that_can_be_asked_for_is_there(asked: Compression) -> None:
    there = codecs.codec(asked.document)
    assert there is not None
    assert dict(there.document) == asked.document


@pytest.mark.parametrize(
    ("codec", "document"),
    [
        ("BFloat16", {"name": "BFloat16"}),
        ("Int8", {"name": "Int8", "block": 256}),
        ("TopK", {"name": "TopK", "fraction": 0.01, "block": 65536}),
    ],
)
def test_a_codec_is_told_with_every_parameter(codec: Any, document: dict[str, Any]) -> None:
    assert Compression(codec=codec).document == document
