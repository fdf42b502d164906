"""What the operator may do, asked of the API server again and again: of a role that was taken away
no watch tells before it is opened anew, and nothing else before there is something to do.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fedoperator import errors
from fedoperator.cluster.api import Api

Right = tuple[str, str, str]
"""Group, resource, verbs with spaces between them."""

NEEDED: Sequence[Right] = (
    ("fedtrain.dev", "federatedtrainings", "get list watch"),
    ("fedtrain.dev", "federatedtrainings/status", "update"),
    ("fedtrain.dev", "federatedrounds", "get list create delete"),
    ("fedtrain.dev", "federatedrounds/status", "update"),
    ("batch", "jobs", "get list watch create delete"),
    ("", "pods", "list"),
    ("", "services", "get create"),
    ("", "persistentvolumeclaims", "get create"),
    ("", "events", "list create"),
    ("networking.k8s.io", "networkpolicies", "get create"),
)
"""Where trainings are: exactly what the operator asks for, and what the chart grants."""

GANGS: Sequence[Right] = (("scheduling.k8s.io", "podgroups", "get create"),)
"""Beside these, for trainings with `scheduling.gang`; who lacks them is told there."""

LEASE: Sequence[Right] = (("coordination.k8s.io", "leases", "get create update"),)
"""Where its lease is."""

PAUSE = 10.0
"""Seconds between two questions; the server answers from memory."""

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"

Rule = Mapping[str, Sequence[str]]

log = logging.getLogger(__name__)


class Rights:
    """Of this process. watched: the namespace of its trainings; empty for all."""

    def __init__(self, api: Api, *, watched: str, lease_namespace: str, lease_name: str) -> None:
        self._api = api
        self._watched = watched
        self._lease_namespace = lease_namespace
        self._lease_name = lease_name
        self._lacking: tuple[str, ...] | None = None

    def lacking(self) -> Iterator[str]:
        """What it may not do and needs to, a sentence for each namespace."""
        if self._lacking is None:
            yield "what the operator may do is not known yet"
        else:
            yield from self._lacking

    async def keep(self) -> None:
        """Ask, for ever."""
        while True:
            try:
                self._lacking = tuple(await self._asked())
            except errors.Unavailable:
                pass  # What was known stays; of silence others tell.
            except errors.ClusterError as error:
                # Some take this question from their accounts: then requests will tell.
                log.debug("rights not known", extra={"said": str(error)})
                self._lacking = ()
            await asyncio.sleep(PAUSE)

    async def _asked(self) -> list[str]:
        # Of all namespaces at once nobody can ask: the release's stands for them. Who has rights
        # there alone is told by the watches, which never open.
        where = self._watched or self._lease_namespace
        rules = await self._rules(where)
        missing = list(absent(NEEDED, rules))
        found = [_sentence(missing, self._watched)] if missing else []
        if where != self._lease_namespace:
            rules = await self._rules(self._lease_namespace)
        missing = list(absent(LEASE, rules, name=self._lease_name))
        return found + ([_sentence(missing, self._lease_namespace)] if missing else [])

    async def _rules(self, namespace: str) -> list[Rule] | None:
        """None where the server does not know all of them."""
        answer = await self._api.request("POST", _REVIEWS, _review(namespace))
        status = answer.get("status") or {}
        return None if status.get("incomplete") else list(status.get("resourceRules") or [])


def absent(
    needed: Iterable[Right], rules: Sequence[Rule] | None, name: str | None = None
) -> Iterator[str]:
    """What no rule allows, as "create and delete jobs.batch"; nothing where rules are unknown.

    name: of the object that is needed; without one a rule for certain names does not help.
    """
    for group, resource, verbs in needed if rules is not None else ():
        lacking = [
            verb for verb in verbs.split() if not _allowed(rules, group, resource, verb, name)
        ]
        if lacking:
            yield f"{' and '.join(lacking)} {resource}{group and f'.{group}'}"


def _allowed(rules: Any, group: str, resource: str, verb: str, name: str | None) -> bool:
    def holds(rule: Rule, field: str, *wanted: str) -> bool:
        return any(one in (rule.get(field) or ()) for one in (*wanted, "*"))

    def of_names(rule: Rule) -> bool:
        names = rule.get("resourceNames") or ()
        # A creation has no name yet, and a rule for certain names never allows it.
        return not names or (name in names and verb != "create")

    _, _, sub = resource.partition("/")
    resources = (resource, f"*/{sub}") if sub else (resource,)
    return any(
        holds(rule, "verbs", verb)
        and holds(rule, "apiGroups", group)
        and holds(rule, "resources", *resources)
        and of_names(rule)
        for rule in rules
    )


def _sentence(missing: Sequence[str], namespace: str) -> str:
    where = f"in namespace {namespace}" if namespace else "in all namespaces"
    remedy = "bind the rules of the chart's templates/rbac.yaml to its ServiceAccount"
    return f"the operator may not {', '.join(missing)} {where}: {remedy}"


def _review(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
