"""What the API server was asked, read from its audit log."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

OPERATOR = "fedtrain-operator"
"""The user agent of the operator's requests."""

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {
            # With its body, which says whether the Job is over.
            "level": "Request",
            "verbs": ["update", "patch"],
            "resources": [{"group": "batch", "resources": ["jobs/status"]}],
        },
        {
            "level": "Metadata",
            "resources": [
                {"group": "fedtrain.dev"},
                {"group": "batch"},
                {"group": "coordination.k8s.io"},
                {"group": "networking.k8s.io"},
                {"group": "", "resources": ["services", "events", "persistentvolumeclaims"]},
            ],
        },
        {"level": "Metadata", "verbs": ["list"], "resources": [{"group": ""}]},
        {"level": "None"},
    ],
}

_OF_ONE = "labelSelector=fedtrain.dev/training%3D"
_OVER = {"SuccessCriteriaMet", "FailureTarget", "Complete", "Failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. at, until: seconds since the epoch, received and answered.

    ends: whether it wrote that a Job is over.
    """

    agent: str
    verb: str
    resource: str
    namespace: str
    name: str
    uri: str
    code: int
    at: float
    until: float
    ends: bool = False

    @property
    def by_operator(self) -> bool:
        return self.agent.startswith(OPERATOR)

    @property
    def writes(self) -> bool:
        return self.verb not in ("get", "list", "watch")

    @property
    def looks(self) -> bool:
        """Whether a look began with it: by the operator, the first part of a list of Jobs."""
        mine = self.by_operator and self.verb == "list" and self.resource == "jobs"
        return mine and _OF_ONE in self.uri and "continue=" not in self.uri

    @property
    def training(self) -> str:
        """Whom it is about; names of the trainings here have no hyphen."""
        if self.name:
            return self.name.partition("-")[0].partition(".")[0]
        return self.uri.partition(_OF_ONE)[2].partition("&")[0]


def requests(log: Path) -> list[Request]:
    """All that are in the log, in the order in which they were received."""
    return sorted(_read(log), key=lambda r: r.at)


def _read(log: Path) -> Iterator[Request]:
    with log.open() as file:
        for line in file:
            if not line.endswith("\n"):
                return  # It is being written.
            event = json.loads(line)
            what = event.get("objectRef") or {}
            resource = "/".join(
                part for part in (what.get("resource"), what.get("subresource")) if part
            )
            body = event.get("requestObject") or {}
            conditions = (body.get("status") or {}).get("conditions") or []
            yield Request(
                agent=event.get("userAgent", ""),
                verb=event["verb"],
                resource=resource,
                namespace=what.get("namespace", ""),
                name=what.get("name", ""),
                uri=event["requestURI"],
                code=(event.get("responseStatus") or {}).get("code", 0),
                at=_seconds(event["requestReceivedTimestamp"]),
                until=_seconds(event["stageTimestamp"]),
                ends=any(c["type"] in _OVER and c["status"] == "True" for c in conditions),
            )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
