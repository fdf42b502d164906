"""Kinds of fields that specs share: names, paths, quantities, and rules about them."""

import re
from typing import Annotated, Any

import pydantic
import pydantic_core
from pydantic import Field
from pydantic.alias_generators import to_camel

from fedoperator.api.base import WHOLE, Rule
from fedtrain import contract

ObjectName = Annotated[
    str,
    Field(
        pattern="^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        min_length=1,
        max_length=253,
        title="name of a Kubernetes object",
        json_schema_extra={"example": "hospital-a-data"},
    ),
]
RelativePath = Annotated[
    str,
    Field(
        pattern="^([^./]|[.][^./])[^/]*(/([^./]|[.][^./])[^/]*)*/?$",
        min_length=1,
        max_length=1024,
        title="relative path without . and ..",
        json_schema_extra={"example": "models/base.safetensors"},
    ),
]
MetricName = Annotated[
    str,
    Field(
        pattern=contract.METRIC_NAME,
        max_length=40,
        title="name of a metric",
        json_schema_extra={"example": "accuracy"},
    ),
]

QUANTITY_PATTERN = r"^([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,3})?$"


def _quantity(given: Any) -> Any:
    whole = isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= WHOLE
    text = isinstance(given, str) and len(given) <= 32 and re.fullmatch(QUANTITY_PATTERN, given)
    if whole or text:
        return given
    pointed = isinstance(given, float)
    remedy = f"write it as a string, '{given}'" if pointed else "write 4, 500m or 2Gi, say"
    context = {"remedy": remedy}
    raise pydantic_core.PydanticCustomError("quantity", "not a quantity; {remedy}", context)


Quantity = Annotated[
    str | int,
    pydantic.BeforeValidator(_quantity),
    pydantic.WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "maxLength": 32,
        }
    ),
]

SCRATCH_PATH = "/scratch"
"""Where a participant's containers see its scratch."""

RESERVED_PATHS = (contract.MOUNT, "/tmp", SCRATCH_PATH)  # noqa: S108 - a path in containers
MountPath = Annotated[
    str,
    Field(
        pattern="^(/([^./:]|[.][^./:])[^/:]*)+/?$",
        max_length=253,
        title="absolute path without colons, . and ..",
        json_schema_extra={"example": "/data"},
    ),
]


def free_path() -> Rule:
    """A mount must not hide the exchange or where the pod's own files are."""
    reserved = f"{', '.join(RESERVED_PATHS[:-1])} or {RESERVED_PATHS[-1]}"
    cel = " && ".join(
        f"self.mountPath != '{path}' && !self.mountPath.startsWith('{path}/')"
        for path in RESERVED_PATHS
    )
    return Rule(
        field="mountPath",
        cel=cel,
        holds=lambda mount: (
            not any(f"{mount.mount_path}/".startswith(f"{path}/") for path in RESERVED_PATHS)
        ),
        says=f"{{0}} hides {reserved}, which fedtrain uses; use another path",
        values=(("self.mountPath", lambda mount: mount.mount_path),),
    )


def one_of(*names: str) -> Rule:
    """Exactly one of the fields is given."""
    cel = [f"has(self.{to_camel(name)})" for name in names]
    return Rule(
        cel=f"[{', '.join(cel)}].exists_one(given, given)",
        holds=lambda model: sum(getattr(model, name) is not None for name in names) == 1,
        says=f"give exactly one of {', '.join(map(to_camel, names))}",
    )
