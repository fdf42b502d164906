"""Values to render the chart with, made of values.yaml: what is there cannot be forgotten here."""

import copy
from collections.abc import Iterator
from typing import Any

import yaml

from tests.chart.conftest import CHART

Path = tuple[str, ...]
Values = dict[str, Any]

DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())

OTHERWISE: dict[str, Any] = {
    "image.repository": "registry.example.com/ours/controller",
    "image.tag": "7",
    "image.digest": f"sha256:{'a' * 64}",
    "image.pullPolicy": "Always",
    "imagePullSecrets": [{"name": "pull"}],
    "nameOverride": "federated",
    "fullnameOverride": "ours",
    "watch.namespace": "hospitals",
    "serviceAccount.name": "theirs",
    "serviceAccount.annotations": {"example.com/role": "operator"},
    "replicas": 2,
    "workers": 9,
    "logLevel": "DEBUG",
    "networkPolicy.apiServer.cidrs": ["192.0.2.1/32", "2001:db8::1/128"],
    "networkPolicy.apiServer.ports": [16443],
    "resources.requests": {"cpu": 1, "memory": "1Gi"},
    "resources.limits": {"cpu": "2", "memory": "2Gi"},
    "terminationGracePeriodSeconds": 7,
    "podAnnotations": {"example.com/a": "b"},
    "podLabels": {"team": "a"},
    "nodeSelector": {"kind": "infra"},
    "tolerations": [{"key": "infra", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}, "podAffinity": {}, "podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"team": "a"}},
        }
    ],
    "priorityClassName": "high",
    "metrics.port": 9999,
    "metrics.service.annotations": {"example.com/scraped": "yes"},
    "metrics.serviceMonitor.labels": {"release": "prometheus"},
    "metrics.serviceMonitor.interval": "1m",
    "metrics.podMonitor.labels": {"release": "prometheus"},
    "metrics.podMonitor.interval": "2m",
    "metrics.prometheusRule.labels": {"release": "prometheus"},
    "tracking.image.repository": "registry.example.com/ours/tracker",
    "tracking.image.tag": "8",
    "tracking.image.digest": f"sha256:{'b' * 64}",
    "tracking.image.pullPolicy": "Always",
    "tracking.mlflow.uri": "https://mlflow.example.com",
    "tracking.mlflow.secretName": "mlflow",
    "tracking.tensorboard.claimName": "events",
    "tracking.resources.requests": {"cpu": 1, "memory": "1Gi"},
    "tracking.resources.limits": {"memory": "2Gi"},
    "dashboard.labels": {"grafana": "here"},
    "dashboard.annotations": {"folder": "ours"},
}
"""Another value than its default, of everything that is neither true nor false."""


def leaves(values: Values = DEFAULTS, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The fields, and not what is free in them: that is one value."""
    for name, value in values.items():
        here = (*path, name)
        if isinstance(value, dict) and value and ".".join(here) not in OTHERWISE:
            yield from leaves(value, here)
        else:
            yield here, value


def objects(values: Values = DEFAULTS, path: Path = ()) -> Iterator[Path]:
    """What holds fields, the whole first."""
    yield path
    for name, value in values.items():
        here = (*path, name)
        if isinstance(value, dict) and value and ".".join(here) not in OTHERWISE:
            yield from objects(value, here)


def put(values: Values, path: Path, value: Any) -> Values:
    """A copy with this value there."""
    changed = copy.deepcopy(values)
    place = changed
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
    return changed


def put_all(values: Values, **given: Any) -> Values:
    """A copy with these; __ in a name stands for a dot."""
    for name, value in given.items():
        values = put(values, tuple(name.split("__")), value)
    return values


def _all(switched: bool) -> Values:
    values: Values = {}
    for path, default in leaves():
        value = switched if isinstance(default, bool) else OTHERWISE.get(".".join(path), default)
        values = put(values, path, value)
    return values


EVERYTHING = put_all(_all(True), watch__clusterWide=False, metrics__podMonitor__enabled=False)
"""As much as goes together, and nothing as it is by default."""

OTHER_HALF = put_all(
    EVERYTHING,
    watch__clusterWide=True,
    watch__namespace="",
    metrics__serviceMonitor__enabled=False,
    metrics__podMonitor__enabled=True,
)
"""What does not go together with the rest."""

NOTHING = _all(False)

CASES: dict[str, Values] = {
    "default": {},
    "everything": EVERYTHING,
    "the other half": OTHER_HALF,
    "nothing": NOTHING,
    "all namespaces, as they are": put_all({}, watch__clusterWide=True),
    "monitors, as they are": put_all(
        {}, metrics__serviceMonitor__enabled=True, metrics__prometheusRule__enabled=True
    ),
    "pods' monitor, as it is": put_all({}, metrics__podMonitor__enabled=True),
    "a tracker of MLflow alone": put_all(
        {}, tracking__enabled=True, tracking__mlflow__uri="https://mlflow.example.com"
    ),
    "a tracker whose rights somebody else grants": put_all(
        {},
        rbac__create=False,
        tracking__enabled=True,
        tracking__mlflow__uri="https://mlflow.example.com",
    ),
    "a tracker of TensorBoard alone": put_all(
        {}, tracking__enabled=True, tracking__tensorboard__claimName="events"
    ),
    "an open policy": put_all({}, networkPolicy__enabled=True),
    "a dashboard that nobody looks for": put_all(
        {}, dashboard__labels=None, dashboard__annotations=None
    ),
    "definitions that go": put_all({}, crds__keep=False),
}
