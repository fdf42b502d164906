"""Hypothesis strategies for federated ones: documents of spec.strategy."""

from typing import Any

from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from fedoperator.api.strategy import DEFAULTS, NAMES

VALUES: dict[str, st.SearchStrategy[float]] = {
    "mu": st.floats(0, 100),
    "learning_rate": st.floats(1e-6, 100),
    "momentum": st.floats(0, 0.999),
    "beta1": st.floats(0, 0.999),
    "beta2": st.floats(0, 0.999),
    "tau": st.floats(1e-9, 1),
    "trim": st.integers(0, 4),
    "byzantine": st.integers(0, 4),
    "selected": st.integers(1, 3),
    "iterations": st.integers(1, 1000),
    "epsilon": st.floats(1e-9, 1),
    "radius": st.floats(1e-6, 1e6),
}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(NAMES))
    optional = {to_camel(parameter): VALUES[parameter] for parameter in DEFAULTS[name]}
    return {"name": name, **draw(st.fixed_dictionaries({}, optional=optional))}


STRATEGIES = documents()
