"""A mistake in a spec with what is said of it, and builders of specs."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Mistake:
    """spec: what is wrong in an otherwise valid training. ours: the lines of `problems`.

    theirs: what the API server's reply holds; None where it accepts what CEL cannot afford to
    refuse; our own sentence where the rule is in both.
    """

    says: str
    spec: dict[str, Any]
    ours: tuple[str, ...]
    theirs: str | None = "ours"

    @property
    def reply(self) -> tuple[str, ...]:
        if self.theirs != "ours":
            return (self.theirs,) if self.theirs else ()
        return tuple(text for line in self.ours for text in line.split(": ", 1))


def a_trainer(**fields: Any) -> dict[str, Any]:
    return {"trainer": {"image": "i", "command": ["c"], **fields}}


def a_volume(**fields: Any) -> dict[str, Any]:
    return {"name": "cache", "mountPath": "/cache", "emptyDir": {}, **fields}


def a_claim(name: str, **fields: Any) -> dict[str, Any]:
    source = {"persistentVolumeClaim": {"claimName": name}}
    return {"name": "other", "mountPath": "/other", "readOnly": False, **source, **fields}


MOUNTED = "{} is the claim of the exchange, with everybody's updates on it; use another one".format


def participants(*given: dict[str, Any]) -> dict[str, Any]:
    """north and south, with the fields given to either."""
    names = ("north", "south")
    return {
        "participants": [
            {"name": name, **fields} for name, fields in zip(names, given, strict=True)
        ]
    }
