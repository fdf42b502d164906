"""Whom the pods of a training may talk to."""

import ipaddress
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedoperator.api.base import Model, Rule


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return "/" in text


class Egress(Model):
    """Addresses that participants' pods may connect to: an object store, a hub of models."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="isCIDR(self.cidr) && cidr(self.cidr) == cidr(self.cidr).masked()",
            holds=lambda egress: _is_cidr(egress.cidr),
            says="not a range of addresses; write 10.20.0.0/16, or 10.20.30.40/32 for one",
            field="cidr",
        ),
    )

    cidr: Annotated[
        str,
        Field(
            min_length=4,
            max_length=49,
            title="range of addresses",
            json_schema_extra={"example": "10.20.0.0/16"},
        ),
    ]
    """The addresses, in CIDR notation."""

    ports: Annotated[
        list[Annotated[int, Field(ge=1, le=65535)]],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = []
    """Of TCP; all ports and protocols if left out."""


class Network(Model):
    """Whom pods of this training may talk to, where the cluster enforces NetworkPolicies."""

    policy: Literal["Strict", "None"] = "Strict"
    """Strict: pods of one participant among themselves, DNS, and the training's hub. None: no
    NetworkPolicy is made, and those of the namespace decide."""

    egress: Annotated[list[Egress], Field(max_length=32)] = []
    """What participants' pods may connect to beside that."""
