"""Exactly the verbs that the operator uses, no more: what the chart grants, tried here."""

from fedoperator.cluster import rights

NAMESPACED = list(rights.NEEDED)
GANGS = list(rights.GANGS)
LEASES = list(rights.LEASE)


def rules(granted: list[tuple[str, str, str]]) -> list[dict[str, list[str]]]:
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()}
        for group, resource, verbs in granted
    ]
