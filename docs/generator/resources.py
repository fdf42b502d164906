"""The fields of both resources, from the models that the API server's schema comes from too."""

import json
import re
from collections.abc import Iterator
from typing import Any

from docs.generator.text import HEADER, cell, code, flowing, plain, table
from fedoperator.api import base, changes, crd, round, rules, status, training

Schema = dict[str, Any]
KINDS = {"array": "list", "object": "mapping", "number": "number"}
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "maxProperties": "at most {} keys",
}

TRAINING = f"""{HEADER}
# FederatedTraining

Every field of `fedtrain.dev/v1alpha1`, `kind: FederatedTraining` (short name `fedt`). The same text
is in `kubectl explain fedt.spec`. A duration is written like `90s`, `30m` or `1h30m`; a quantity
like `4`, `500m` or `2Gi`. Unknown fields are refused.
"""
ROUND = f"""{HEADER}
# FederatedRound

The record of one round, `kind: FederatedRound` (short name `fedr`), which the operator writes:
`kubectl get fedr` is the lab book of a training, and the lineage of its models.
"""


def training_page() -> str:
    own = "".join(f"- {plain(_sentence(rule))}\n" for rule in (*rules.SPEC, *rules.ROOT))
    return "\n".join(
        [
            TRAINING,
            *sections(training.TrainingSpec, "spec"),
            f"## Rules between fields\n\n{own}",
            f"## What may change\n\n{_transitions()}",
            *sections(status.TrainingStatus, "status"),
        ]
    )


def _transitions() -> str:
    """What a training that has begun refuses to have changed, by the sentence that it says."""
    fields: dict[str, list[str]] = {}
    for field, _, sentence in changes.transitions():
        fields.setdefault(sentence, []).append(code(field))
    return "".join(f"- {', '.join(names)} {plain(says)}\n" for says, names in fields.items())


def round_page() -> str:
    return "\n".join(
        [ROUND, *sections(round.RoundSpec, "spec"), *sections(round.RoundStatus, "status")]
    )


def sections(model: type[base.Model], name: str) -> Iterator[str]:
    """One for the model itself, then one for each that it is made of, in the order of their use."""
    schema = model.model_json_schema(by_alias=True, schema_generator=crd.Generator)
    models, left, told = schema.pop("$defs", {}), list(_used(schema)), {name}
    classes = {kind.__name__: kind for kind in _below(base.Model)}
    written = issubclass(model, base.StatusModel)
    yield _section(f"`{name}`", schema, models, (), written)
    while left:
        used = left.pop(0)
        if used not in told:
            told.add(used)
            yield _section(used, models[used], models, classes[used].rules, written)
            left += _used(models[used])


def _below(kind: type[base.Model]) -> Iterator[type[base.Model]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def _used(schema: Schema) -> list[str]:
    """Names of the models that a model's fields refer to, each once, in order."""
    found = re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema.get("properties", {})))
    return list(dict.fromkeys(found))


def _section(
    name: str, schema: Schema, models: dict[str, Schema], own: tuple[base.Rule, ...], written: bool
) -> str:
    """written: by the operator, so that there are no defaults."""
    head = ["field", "type", *([] if written else ["default"]), "what it is"]
    required = schema.get("required", ())
    rows = []
    for field, found in schema.get("properties", {}).items():
        row = [code(field), _type(found)]
        if not written:
            row.append("**required**" if field in required else _default(found))
        rows.append([*row, " ".join([cell(_description(found, models)), *_more(found)]).strip()])
    text = f"## {name}\n\n{plain(flowing(schema.get('description')))}\n\n{table(head, rows)}"
    if own:
        text += "\n" + "".join(f"- {plain(_sentence(rule))}\n" for rule in own)
    return text


def _description(schema: Schema, models: dict[str, Schema]) -> str:
    """The field's own, or the first sentence of the model that it holds."""
    if "description" in schema:
        return str(schema["description"])
    for member in _members(schema):
        if reference := member.get("$ref"):
            whole = flowing(models[reference.rsplit("/", 1)[1]].get("description"))
            return re.split(r"(?<=\.) ", whole.partition("\n\n")[0])[0]
    return ""


def _sentence(rule: base.Rule) -> str:
    """The sentence with what it is about; values that it would name are left open."""
    says = rule.says.format(*("..." for _ in rule.values))
    return f"`{rule.field}` {says}" if rule.field else says


def _members(schema: Schema) -> list[Schema]:
    """What a value may be, null aside: the schema itself, unless it names several."""
    return [m for m in schema.get("anyOf", [schema]) if m.get("type") != "null"]


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    return " or ".join(dict.fromkeys(_one_type(member) for member in _members(schema)))


def _one_type(schema: Schema) -> str:
    if reference := schema.get("$ref"):
        name = reference.rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if "const" in schema:
        return code(schema["const"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping to {_type(schema['additionalProperties'])}"
    if kind == "string" and schema.get("title") in ("duration",):
        return "duration"
    return str(KINDS.get(kind, kind))


def _default(schema: Schema) -> str:
    default = schema.get("default")
    if default is None:
        return ""
    if default == {} and "$ref" in schema:
        return "its fields'"
    return code(json.dumps(default) if not isinstance(default, str) else default or '""')


def _more(schema: Schema) -> Iterator[str]:
    """Bounds and kinds of names, in brackets."""
    for member in _members(schema):
        title = member.get("title", "text")
        said = [] if title in ("text", "duration") or title[0].isupper() else [title]
        if title != "duration":
            said += [
                f.format(_number(member[key])) for key, f in BOUNDS.items() if _tells(member, key)
            ]
        if said:
            yield plain(f"({', '.join(said)})")


def _tells(schema: Schema, key: str) -> bool:
    """Whether a bound is there, and is more than that the number can be written in JSON."""
    return key in schema and abs(schema[key]) < base.WHOLE


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
