"""NetworkPolicies, evaluated: who may connect to whom, by the rules that Kubernetes documents.

A pod that no policy of a direction selects may do anything in it; else what any of them allows. A
connection needs both the egress of its beginning and the ingress of its end.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """labels None: no pod, an address outside the cluster."""

    namespace: str
    labels: Mapping[str, str] | None
    address: str = "10.0.0.1"


def may_connect(
    policies: Sequence[Policy], start: Pod, end: Pod, port: int, protocol: str = "TCP"
) -> bool:
    out = _allows(policies, start, end, "Egress", "to", port, protocol)
    return out and _allows(policies, end, start, "Ingress", "from", port, protocol)


def _allows(
    policies: Sequence[Policy],
    own: Pod,
    other: Pod,
    direction: str,
    peers: str,
    port: int,
    protocol: str,
) -> bool:
    of_own = [
        p["spec"]
        for p in policies
        if direction in p["spec"]["policyTypes"] and _selects_pod(p, own)
    ]
    namespace = own.namespace
    return not of_own or any(
        _is_peer(rule.get(peers), other, namespace) and _is_port(rule.get("ports"), port, protocol)
        for spec in of_own
        for rule in spec.get(direction.lower()) or []
    )


def _selects_pod(policy: Policy, pod: Pod) -> bool:
    if pod.labels is None or policy["metadata"]["namespace"] != pod.namespace:
        return False
    return _matches(policy["spec"]["podSelector"], pod.labels)


def _is_peer(peers: Sequence[Any] | None, pod: Pod, namespace: str) -> bool:
    return not peers or any(_is_one(peer, pod, namespace) for peer in peers)


def _is_one(peer: Mapping[str, Any], pod: Pod, namespace: str) -> bool:
    if "ipBlock" in peer:
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return ipaddress.ip_address(pod.address) in network
    if pod.labels is None:
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": pod.namespace}
        if not _matches(peer["namespaceSelector"], labels):
            return False
    elif pod.namespace != namespace:
        return False
    return _matches(peer.get("podSelector", {}), pod.labels)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    there = selector.get("matchExpressions", [])
    assert all(e["operator"] == "Exists" for e in there), "the others are not needed here"
    return all(labels.get(k) == v for k, v in wanted) and all(e["key"] in labels for e in there)


def _is_port(ports: Sequence[Any] | None, port: int, protocol: str) -> bool:
    return not ports or any((p["protocol"], p["port"]) == (protocol, port) for p in ports)
