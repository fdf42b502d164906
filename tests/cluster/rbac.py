"""Exactly the verbs that the operator uses, no more: what the chart grants, tried here."""

NAMESPACED = [
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
]
GANGS = [("scheduling.k8s.io", "podgroups", "get create")]
"""Of trainings with `scheduling.gang` alone; test_gang.py has them."""
LEASES = [("coordination.k8s.io", "leases", "get create update")]


def rules(granted: list[tuple[str, str, str]]) -> list[dict[str, list[str]]]:
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()}
        for group, resource, verbs in granted
    ]
