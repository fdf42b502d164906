"""What each strategy computes, with its paper, from the file that computes it."""

import dataclasses
import inspect
import sys

from docs.generator.text import HEADER, cell, code, flowing, plain, table
from fedtrain import strategies
from fedtrain.strategies import norm_bound

INTRODUCTION = f"""{HEADER}
# Formulas of the strategies

Each strategy as its file in `trainer/fedtrain/strategies` states it. d_k is the delta of
participant k, n_k its weight, w the global model. Which one to take, and what goes with what:
[Strategies](strategies.md).
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *map(_section, strategies.STRATEGIES.values()), _norm_bound()])


def _section(kind: type[strategies.Strategy]) -> str:
    paper = flowing(sys.modules[kind.__module__].__doc__).partition(": ")[2]
    first, _, rest = flowing(kind.__doc__).partition("\n\n")
    rows = [
        [code(_camel(field.name)), _default(field.default), cell(field.metadata["says"])]
        for field in dataclasses.fields(kind)
    ]
    parts = [f"## {kind.name}\n", f"{plain(first)}\n", f"{plain(rest)}\n", f"*{plain(paper)}*\n"]
    if rows:
        parts.append(table(["parameter", "default", "takes"], rows))
    return "\n".join(part for part in parts if part.strip())


def _default(default: float | None) -> str:
    return "" if default is None else code(f"{default:g}")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _norm_bound() -> str:
    paper = flowing(norm_bound.__doc__).partition(": ")[2]
    says = flowing(inspect.getdoc(norm_bound.scales)).partition("\n\n")[0]
    return f"## normBound\n\n{plain(says)}\n\n*{plain(paper)}*\n"
