"""NetworkPolicies of a training: made before its first pod, and its own as its Jobs are.

A policy's selectors cannot say "the same participant as mine", so every participant of several
nodes has one of its own. Who runs on one node talks to itself alone, and needs none; shards of an
aggregation meet in files. Volumes are mounted by the node, and no policy is in their way.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedoperator.api.training import Training
from fedoperator.rounds import observed
from fedoperator.rounds.observed import Trouble
from fedoperator.rounds.workloads import Workload
from fedtrain import contract
from fedtrain.contract import Role

OPERATOR = {"fedtrain.dev/component": "operator"}
"""The operator's own pods; the chart labels them so."""

Object = dict[str, Any]

_DNS = (53, 5353)
"""5353: of OpenShift's pods."""

_NODE_LOCAL = "169.254.20.10/32"
"""Where NodeLocal DNSCache listens, on the node itself."""

_OF_THE_NETWORK = re.compile(
    "timed out|timeout|connection|unreachable|resolv|getaddrinfo|name or service", re.IGNORECASE
)


def policies(workload: Workload, operator_namespace: str) -> list[Object]:
    """What has to be there before this workload's pods; the owner is for the caller to name."""
    training = workload.training
    if training.spec.network.policy == "None":
        return []
    found = []
    if workload.identity.role is Role.PREPARE:  # The first of every training.
        found.append(_nobody_else(training))
        if training.spec.network.egress:
            found.append(_outside(training))
        if workload.stays:
            found += [_hub(training, operator_namespace), _callers(training)]
    elif workload.trainer is not None and workload.nodes > 1:
        found.append(_among_nodes(training, workload.identity.participant))
    return found


def explained(training: Training, trouble: Trouble) -> Trouble:
    """A failure that may come of the policies, with how to allow what they forbid."""
    if training.spec.network.policy == "None" or not _OF_THE_NETWORK.search(trouble.message):
        return trouble
    remedy = "its pods reach only each other and DNS: spec.network.egress allows more"
    return replace(trouble, message=f"{trouble.message} ({remedy})")


def _nobody_else(training: Training) -> Object:
    """Whatever no other policy allows is forbidden, except to ask for names."""
    to = [{"namespaceSelector": {}}, {"ipBlock": {"cidr": _NODE_LOCAL}}]
    ports = [{"protocol": p, "port": n} for p in ("UDP", "TCP") for n in _DNS]
    return _policy(training, "pods", _of(training), egress=[{"to": to, "ports": ports}], ingress=[])


def _outside(training: Training) -> Object:
    rules = []
    for allowed in training.spec.network.egress:
        rule: Object = {"to": [{"ipBlock": {"cidr": allowed.cidr}}]}
        if allowed.ports:
            rule["ports"] = [{"protocol": "TCP", "port": port} for port in allowed.ports]
        rules.append(rule)
    return _policy(training, "outside", _participants(training), egress=rules)


def _among_nodes(training: Training, participant: str) -> Object:
    same = _of(training, {observed.PARTICIPANT_LABEL: participant})
    peers = [{"podSelector": same}]
    return _policy(
        training,
        f"nodes.{participant}",
        same,
        egress=[{"to": peers}],
        ingress=[{"from": peers}],
    )


def _hub(training: Training, operator_namespace: str) -> Object:
    where = {"matchLabels": {"kubernetes.io/metadata.name": operator_namespace}}
    operator = {"namespaceSelector": where, "podSelector": {"matchLabels": OPERATOR}}
    callers = [{"podSelector": _participants(training)}, operator]
    return _policy(
        training, "hub", _hub_pods(training), ingress=[{"from": callers, "ports": [_HUB]}]
    )


def _callers(training: Training) -> Object:
    to = [{"podSelector": _hub_pods(training)}]
    return _policy(
        training, "callers", _participants(training), egress=[{"to": to, "ports": [_HUB]}]
    )


_HUB = {"protocol": "TCP", "port": contract.HUB_PORT}


def _of(training: Training, more: Object | None = None) -> Object:
    return {"matchLabels": {observed.TRAINING_LABEL: training.name, **(more or {})}}


def _participants(training: Training) -> Object:
    exists = {"key": observed.PARTICIPANT_LABEL, "operator": "Exists"}
    return {**_of(training), "matchExpressions": [exists]}


def _hub_pods(training: Training) -> Object:
    which = {observed.ROLE_LABEL: str(Role.PREPARE), observed.RESIDENT_LABEL: "true"}
    return _of(training, which)


def _policy(
    training: Training,
    name: str,
    pods: Object,
    *,
    egress: Sequence[Object] | None = None,
    ingress: Sequence[Object] | None = None,
) -> Object:
    """Names hold a dot, which no name of a training or participant does: so none collide."""
    spec: Object = {"podSelector": pods, "policyTypes": []}
    for kind, rules in (("Ingress", ingress), ("Egress", egress)):
        if rules is not None:
            spec["policyTypes"].append(kind)
            spec[kind.lower()] = list(rules)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": f"{training.name}.{name}",
            "namespace": training.namespace,
            "labels": {observed.TRAINING_LABEL: training.name},
        },
        "spec": spec,
    }
