"""Python's objects as the plain document that YAML would have given."""

import dataclasses
import numbers
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import pydantic
from pydantic.alias_generators import to_camel

Schema = Mapping[str, Any]


def plain(value: Any, schema: Schema) -> Any:
    """Mappings, lists, texts and numbers, under the names of the API.

    snake_case becomes camelCase where the schema has such a field; the keys of free mappings
    (`parameters`, labels, resources) stay as they are, and so does what the schema does not know,
    for the sentences that follow. A text among `participants` is a participant of that name.
    Raises ValueError, in one sentence, for what YAML could not say.
    """
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return _mapping(value, schema)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        of = schema.get("items", {})
        named = schema.get("x-kubernetes-list-map-keys") == ["name"]
        return [{"name": v} if named and isinstance(v, str) else plain(v, of) for v in items]
    return _scalar(value)


def _mapping(given: Mapping[Any, Any], schema: Schema) -> dict[str, Any]:
    fields, free = schema.get("properties", {}), schema.get("additionalProperties")
    of_free = free if isinstance(free, Mapping) else {}
    result: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise ValueError(f"{key!r} is not a text; the keys of mappings are texts")
        camel = to_camel(key)
        name = camel if camel in fields and key not in fields else key
        if name in result:
            raise ValueError(f"{key} and {name} are one field; give it once")
        result[name] = plain(value, fields.get(name, of_free))
    return result


def _scalar(value: Any) -> Any:
    """numpy's numbers as Python's, and paths as texts."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an enum of texts, its value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if hasattr(value, "tolist"):  # an array, a tensor, numpy's bool
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    remedy = "give texts, numbers, lists and mappings"
    raise ValueError(f"a {type(value).__name__} cannot be written as YAML; {remedy}")
