"""Requests to the API server, as RBAC and the bench see them, and how it would refuse them."""

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

_REASONS = {
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}
RIGHTS = "selfsubjectrulesreviews"
"""Its own, which everybody may ask for: the chart grants it to nobody."""

BY_THE_CLOCK = ("leases", RIGHTS)
"""Asked for as time goes by: which request comes between two of them differs from run to run."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as far as the bench wants to know it."""

    method: str
    path: str
    watches: bool

    @property
    def resource(self) -> tuple[str, str, str]:
        """(group, resource with subresource, name)."""
        parts = [*self.path.strip("/").split("/"), ""]
        group, below = ("", parts[2:-1]) if parts[0] == "api" else (parts[1], parts[3:-1])
        if below[:1] == ["namespaces"] and len(below) > 2:
            below = below[2:]
        plural, name, sub = (*below, "", "", "")[:3]
        return group, f"{plural}/{sub}" if sub else plural, name

    @property
    def verb(self) -> str:
        """As RBAC says it."""
        named = bool(self.resource[2])
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        return "watch" if self.watches else verbs.get(self.method, "get" if named else "list")

    @property
    def lists(self) -> bool:
        """A list of children, the one that may be old; an expired one may be any."""
        return self.verb == "list" and self.resource[1] == "jobs"

    def refusal(self, code: int) -> int:
        """The same, if a server could answer so: what is only read never conflicts."""
        if code != 409 or self.method != "GET":
            return code
        return 410 if self.verb == "list" and self.resource[1] else 503

    @property
    def writes(self) -> bool:
        return self.method != "GET" and self.resource[1] not in (*BY_THE_CLOCK, "events")


def named(body: bytes) -> str:
    """The name of what is to be created."""
    return str(json.loads(body).get("metadata", {}).get("name", "")) if body else ""


def status(code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"the bench says {code}",
        "reason": _REASONS[code],
        "code": code,
    }


def refusal(code: int) -> web.Response:
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(status(code), status=code, headers=headers)
