"""The parameters of a strategy: fields of its dataclass that say which values they take.

The API admits the same values; here they are checked again, because an aggregator may be older
or newer than the operator that wrote its task.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

S = TypeVar("S")


def number(
    default: float, *, above: float | None = None, least: float | None = None, below: float = 1e9
) -> Any:
    """A field for a number > above or >= least, and < below; NaN is neither."""
    low = f"above {above:g}" if above is not None else f"of at least {least:g}"
    return dataclasses.field(
        default=default,
        metadata={
            "says": f"a number {low} and below {below:g}",
            "holds": lambda value: (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and (above is None or value > above)
                and (least is None or value >= least)
                and value < below
            ),
            "read": float,
        },
    )


def whole(default: int | None, *, least: int, most: int = 1000, says: str = "") -> Any:
    """A field for a whole number from least to most; if the default is None, also for None."""
    return dataclasses.field(
        default=default,
        metadata={
            "says": f"a whole number from {least} to {most}{says}",
            "holds": lambda value: (
                (value is None and default is None)
                or (type(value) is int and least <= value <= most)
            ),
            "read": lambda value: value,
        },
    )


def read(kind: type[S], document: Mapping[str, Any]) -> S:
    """The strategy of this kind with a document's parameters. Raises ValueError, one sentence."""
    fields = {_camel(field.name): field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key == "name":
            continue
        if key not in fields:
            have = f"it has {', '.join(fields)}" if fields else "it has none"
            raise ValueError(f"strategy.{key}: {kind.__name__} has no such parameter; {have}")
        field = fields[key]
        if not field.metadata["holds"](value):
            raise ValueError(
                f"strategy.{key}: {value!r} is not {field.metadata['says']}; "
                f"use one, or leave it out for {_shown(field.default)}"
            )
        values[field.name] = field.metadata["read"](value)
    return kind(**values)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _shown(default: Any) -> str:
    return "its default" if default is None else f"{default:g}"
