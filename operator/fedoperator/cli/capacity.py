"""What a cluster cannot give: a training's needs against what is there, each in one sentence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fedoperator.api.training import Training
from fedoperator.local.folder import Refused
from fedoperator.report import markup
from fedoperator.rounds import forecast, volumes
from fedoperator.rounds.forecast import Forecast, quantity
from fedoperator.rounds.workloads import Workload

if TYPE_CHECKING:
    from fedoperator.cli.server import Server

Amounts = Mapping[str, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """nodes: what each that takes pods has for them. quotas: name, hard and used of each.
    claims, classes (name: whether default), priorities, runtimes: those there are; None where we
    may not look. remarks: why not."""

    nodes: tuple[Amounts, ...] | None = None
    claims: frozenset[str] | None = None
    classes: Mapping[str, bool] | None = None
    quotas: tuple[tuple[str, Amounts, Amounts], ...] = ()
    priorities: frozenset[str] | None = None
    runtimes: frozenset[str] | None = None
    remarks: tuple[str, ...] = field(default=())


def shortfalls(training: Training, needs: Forecast, cluster: Cluster) -> Iterator[str]:
    """What is missing, and what to do about it."""
    if cluster.nodes is not None:
        yield from _nodes(needs, cluster.nodes)
    yield from _claims(training, needs, cluster)
    for kind, wanted, there in (
        ("PriorityClass", _named(needs, "priorityClassName"), cluster.priorities),
        ("RuntimeClass", _named(needs, "runtimeClassName"), cluster.runtimes),
    ):
        for name in sorted(wanted - (there if there is not None else wanted)):
            yield f"there is no {kind} {name}; create it, or name another one"
    for name, hard, used in cluster.quotas:
        yield from _quota(name, hard, used, needs)


def _nodes(needs: Forecast, nodes: tuple[Amounts, ...]) -> Iterator[str]:
    """Pods that fit on no node, and accelerators that all nodes together have not."""
    told = set()
    for workload in needs.largest:
        wanted = forecast.each(workload)
        if (_who(workload), *wanted.items()) in told:
            continue  # it has been said of another role
        told.add((_who(workload), *wanted.items()))
        if any(all(node.get(n, 0) >= amount for n, amount in wanted.items()) for node in nodes):
            continue
        lacking = [n for n, amount in wanted.items() if all(x.get(n, 0) < amount for x in nodes)]
        what = ", ".join(f"{n} {shown(n, wanted[n])}" for n in lacking or wanted)
        yield f"no node has {what} for a pod of {_who(workload)}; ask for less, or add such a node"
    for name, amount in needs.held.items():
        there = sum((node.get(name, Decimal()) for node in nodes), Decimal())
        if "/" in name and there < amount:
            yield (
                f"{shown(name, amount)} {name} are held at the same time, and all nodes together "
                f"have {shown(name, there)}; some participants will wait for others"
            )


def _claims(training: Training, needs: Forecast, cluster: Cluster) -> Iterator[str]:
    spec = training.spec
    if cluster.claims is not None:
        for name, fields in sorted(_claims_of(training).items()):
            if name not in cluster.claims:
                yield f"the claim {name} does not exist ({', '.join(fields)}); create it"
    exchange = spec.exchange
    if exchange.size is not None and cluster.classes is not None:
        named = exchange.storage_class_name
        made = cluster.claims is not None and volumes.claim_name(training) in cluster.claims
        if named is not None and named not in cluster.classes and not made:
            yield f"exchange.storageClassName: there is no StorageClass {named}; name one there is"
        if named is None and not any(cluster.classes.values()) and not made:
            yield "there is no default StorageClass; set exchange.storageClassName"


def too_small(training: Training, needs: Forecast) -> Iterator[str]:
    """Of the claim that the training makes; what the file alone says."""
    size = training.spec.exchange.size
    if size is not None and needs.peak is not None and quantity(size) < needs.peak:
        wanted = -(-needs.peak * 6 // 5 // 2**30)
        yield (
            f"exchange.size: {size} is less than the {markup.size(needs.peak)} that models and "
            f"updates take; use {wanted}Gi or more, or a smaller keep"
        )


def _claims_of(training: Training) -> dict[str, list[str]]:
    """Claims that must exist already, and the fields that name them."""
    spec = training.spec
    found: dict[str, list[str]] = {}

    def note(claim: str | None, field: str) -> None:
        if claim is not None:
            found.setdefault(claim, []).append(field)

    note(spec.exchange.claim_name, "exchange.claimName")
    note(spec.model.claim_name, "model.claimName")
    for site in spec.sites:
        base = spec.base_of(site)
        note(site.data.claim_name if site.data else None, f"data of {site.name}")
        note(site.scratch.claim_name if site.scratch else None, f"scratch of {site.name}")
        note(base.claim_name if base else None, f"base of {site.name}")
        for volume in spec.trainer_of(site).to_dict().get("volumes", []):
            claim = volume.get("persistentVolumeClaim") or {}
            note(claim.get("claimName"), f"volumes of {site.name}")
    return found


def _quota(name: str, hard: Amounts, used: Amounts, needs: Forecast) -> Iterator[str]:
    wanted: dict[str, Decimal] = {"pods": Decimal(needs.at_most)}
    wanted["count/jobs.batch"] = Decimal(needs.jobs)
    for resource, amount in needs.held.items():
        wanted |= {f"requests.{resource}": amount, f"limits.{resource}": amount}
        if resource in ("cpu", "memory"):
            wanted[resource] = amount
    for resource, limit in hard.items():
        left, amount = limit - used.get(resource, Decimal()), wanted.get(resource, Decimal())
        if amount > left:
            yield (
                f"the quota {name} leaves {shown(resource, left)} {resource}, and "
                f"{shown(resource, amount)} are held at the same time; some pods will wait"
            )


def _named(needs: Forecast, field: str) -> set[str]:
    found = set()
    for workload in needs.largest:
        scheduling = workload.training.spec.scheduling
        given: dict[str, Any] = scheduling.to_dict() if scheduling else {}
        given = given | (workload.trainer.to_dict() if workload.trainer else {})
        if given.get(field):
            found.add(str(given[field]))
    return found


def _who(workload: Workload) -> str:
    return workload.identity.participant or f"the role {workload.identity.role}"


def shown(resource: str, amount: Decimal) -> str:
    """An amount as people write it."""
    if "memory" in resource or "storage" in resource:
        return markup.size(int(amount))
    return f"{amount.normalize():f}"


def looked_at(server: "Server") -> Cluster:
    """Everything that may be seen of the cluster; what may not is a remark. Raises Refused if it
    does not answer at all."""
    remarks: list[str] = []

    def listed(path: str, what: str) -> list[dict[str, Any]] | None:
        try:
            return server.list(path)
        except Refused as refused:
            if " 403 " not in str(refused):
                raise
            remarks.append(f"you may not list {what}: that is not looked at")
            return None

    nodes = listed("/api/v1/nodes", "nodes")
    claims = listed(server.core("persistentvolumeclaims"), "claims")
    classes = listed("/apis/storage.k8s.io/v1/storageclasses", "storage classes")
    quotas = listed(server.core("resourcequotas"), "quotas")
    priorities = listed("/apis/scheduling.k8s.io/v1/priorityclasses", "priority classes")
    runtimes = listed("/apis/node.k8s.io/v1/runtimeclasses", "runtime classes")
    return Cluster(
        nodes=None if nodes is None else tuple(_room(n) for n in nodes if _takes_pods(n)),
        claims=_names(claims),
        classes=None if classes is None else {_name(c): _is_default(c) for c in classes},
        quotas=tuple(_quotas(quotas or [])),
        priorities=_names(priorities),
        runtimes=_names(runtimes),
        remarks=tuple(remarks),
    )


def _takes_pods(node: dict[str, Any]) -> bool:
    ready = any(
        c["type"] == "Ready" and c["status"] == "True"
        for c in node.get("status", {}).get("conditions", [])
    )
    return ready and not node.get("spec", {}).get("unschedulable")


def _room(node: dict[str, Any]) -> Amounts:
    return {n: quantity(v) for n, v in node["status"].get("allocatable", {}).items()}


def _quotas(found: list[dict[str, Any]]) -> Iterator[tuple[str, Amounts, Amounts]]:
    for quota in found:
        status = quota.get("status", {})
        hard, used = status.get("hard") or quota["spec"].get("hard", {}), status.get("used", {})
        amounts = [{n: quantity(v) for n, v in part.items()} for part in (hard, used)]
        yield _name(quota), amounts[0], amounts[1]


def _name(item: dict[str, Any]) -> str:
    return str(item["metadata"]["name"])


def _names(found: list[dict[str, Any]] | None) -> frozenset[str] | None:
    return None if found is None else frozenset(_name(item) for item in found)


def _is_default(item: dict[str, Any]) -> bool:
    notes = item["metadata"].get("annotations") or {}
    return notes.get("storageclass.kubernetes.io/is-default-class") == "true"
