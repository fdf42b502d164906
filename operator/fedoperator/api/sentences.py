"""From an error of pydantic to a sentence: the value, what it is not, and what to write instead."""

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

import pydantic_core

Path = tuple[int | str, ...]
Schema = dict[str, Any]

_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}
# Where null means "the usual", a field's description says what that is.
_LEFT_OUT = re.compile(r"(\w+) if left out")


def spelled(path: Path) -> str:
    """("spec", "participants", 2, "name") → spec.participants[2].name, as kubectl does."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: object) -> str:
    """A value on one line, cut to what is needed to recognise it."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unknown(field: object, known: Iterable[str]) -> str:
    """For a field that is not there: the one that was meant, or all there are."""
    names = {name.lower(): name for name in sorted(known)}
    written = str(field).replace("_", "").lower()
    meant = difflib.get_close_matches(written, names, n=1, cutoff=0.6)
    if meant:
        return f"no such field; did you mean {names[meant[0]]}?"
    return f"no such field; leave it out, or use one of {', '.join(names.values())}"


def of(detail: pydantic_core.ErrorDetails, spec: Schema) -> str:
    """The sentence for one error, given the schema of the spec."""
    path, value, kind = detail["loc"], detail["input"], detail["type"]
    parent, schema = _node(spec, path[:-1]), _node(spec, path)
    match kind:
        case "extra_forbidden":
            return unknown(path[-1], parent.get("properties", {}))
        case "missing":
            return f"is missing; give {_wanted(schema)}"
        case "quantity":
            return f"{shown(value)} is not a quantity; {detail['ctx']['remedy']}"
        case "too_long" | "too_short":
            assert isinstance(value, dict | list)
            entries = f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
            return f"{entries}; {_bounds(len(value), schema, 'Items', 'Properties')}"
    if "type" not in schema:
        return f"{shown(value)}: {detail['msg']}; correct it"
    optional = path[-1] in parent.get("properties", {}) and path[-1] not in parent.get(
        "required", ()
    )
    remedy = _remedy(kind, value, schema)
    left_out = _left_out(schema) if optional and not remedy.endswith("?") else ""
    return f"{shown(value)} {_fault(kind, schema)}; {remedy}{left_out}"


def _node(schema: Schema, path: Path) -> Schema:
    """The schema of what is at the path; empty where there is none."""
    for part in path:
        values = schema.get("additionalProperties", {})
        inside = schema.get("properties", {}).get(part, values)
        schema = schema.get("items", {}) if isinstance(part, int) else inside
    return schema


def _fault(kind: str, schema: Schema) -> str:
    """A field that has a word of its own says it; 0 is a whole number, but may be too small."""
    if "title" not in schema and kind in ("greater_than", "greater_than_equal"):
        return "is too small"
    if "title" not in schema and kind in ("less_than", "less_than_equal"):
        return "is too large"
    return f"is not {_noun(schema)}"


def _noun(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(str(member) or '""' for member in schema["enum"])
    noun = schema.get("title") or _KINDS[schema["type"]]
    article = "" if schema["type"] == "boolean" else "an " if noun[0] in "aeio" else "a "
    return f"{article}{noun}"


def _wanted(schema: Schema) -> str:
    noun = _noun(schema)
    if schema.get("type") == "object":
        return f"{noun} of {', '.join(schema.get('properties', {}))}"
    if "maximum" in schema:
        return f"{noun} from {schema['minimum']} to {schema['maximum']}"
    return f"{noun}, like {schema['example']}" if "example" in schema else noun


def _remedy(kind: str, value: object, schema: Schema) -> str:
    if "enum" in schema:
        near = difflib.get_close_matches(str(value).title(), schema["enum"], n=1, cutoff=0.6)
        return f"did you mean {near[0]}?" if near else "use one of these"
    if kind in ("string_too_long", "string_too_short") and isinstance(value, str):
        return _bounds(len(value), schema, "Length")
    if isinstance(value, int | float) and not isinstance(value, bool) and "minimum" in schema:
        return _bounds(value, schema, "imum")
    if "example" in schema:
        return f"write it like {schema['example']}"
    match schema["type"]:
        case "object":
            return f"write {_wanted(schema)}"
        case "array":
            return "write one entry a line, each after a dash"
        case "boolean":
            return "write one of them, without quotes"
        case "string":
            return "write it in quotes"
    return f"use {schema['minimum']} to {schema['maximum']}" if "maximum" in schema else "write one"


def _bounds(size: float, schema: Schema, *what: str) -> str:
    """Which bound of the schema the size is beyond, as a remedy."""
    unit = " characters" if what == ("Length",) else ""
    least = next((schema[f"min{w}"] for w in what if f"min{w}" in schema), None)
    most = next((schema[f"max{w}"] for w in what if f"max{w}" in schema), None)
    if least is not None and (size <= least if schema.get("exclusiveMinimum") else size < least):
        if schema.get("exclusiveMinimum"):
            return f"use more than {least}"
        return f"use {least}{unit} or more"
    if most is not None and (size >= most if schema.get("exclusiveMaximum") else size > most):
        if schema.get("exclusiveMaximum"):
            return f"use less than {most}"
        return f"use {most}{unit} or less"
    return f"use {least} to {most}, whole"


def _left_out(schema: Schema) -> str:
    """How to do without the field."""
    named = _LEFT_OUT.search(schema.get("description", ""))
    default = schema.get("default", named and named[1])
    if default is None:
        return ", or leave it out"
    if isinstance(default, dict | list):
        return ", or leave it out"
    usual = default if isinstance(default, str) else json.dumps(default)
    return f", or leave it out for {usual}"
