"""What holds for everything that the chart renders to, whichever way its conditionals go."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from tests.chart import branches
from tests.chart.conftest import CHART, Document, HelmError, only
from tests.chart.settings import CASES, EVERYTHING, OTHERWISE, leaves, put, put_all

RELEASE = "release-of-a-name-that-is-as-long-as-helm-lets-one-be"
NAMESPACE = "fedtrain-system"
CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
GENERATED = {"CustomResourceDefinition"} | {k for k in CLUSTER_SCOPED if k.startswith("Val")}
"""From the models, for whoever installs them without the chart, too."""


class Rendering(NamedTuple):
    documents: list[Document]
    marks: set[str]


class Marked(NamedTuple):
    every: set[str]
    of: dict[str, Rendering]


@pytest.fixture(scope="module")
def marked(helm: Callable[..., str], tmp_path_factory) -> Marked:
    """Every case, rendered once from the chart with marks, for a release of the longest name."""
    folder = tmp_path_factory.mktemp("marked")
    every = branches.marked(CHART, folder / "fedtrain")
    found = {}
    for name, values in CASES.items():
        file = folder / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        words = ("--namespace", NAMESPACE, "--values", file)
        text, marks = branches.passed(helm("template", RELEASE, folder / "fedtrain", *words))
        documents = [d for d in yaml.load_all(text, yaml.CSafeLoader) if d]
        found[name] = Rendering(documents, marks)
    return Marked(every, found)


@pytest.fixture(params=CASES)
def documents(request, marked: Marked) -> list[Document]:
    return marked.of[request.param].documents


def test_every_conditional_goes_both_ways_in_some_case(marked):
    assert len(marked.every) > 50
    passed = set.union(*(rendering.marks for rendering in marked.of.values()))
    assert marked.every - passed == set(), "nothing is rendered that way: add a case"


def test_marks_change_nothing(marked, helm):
    words = ("--namespace", NAMESPACE, "--skip-tests")
    plain = yaml.load_all(helm("template", RELEASE, CHART, *words), yaml.CSafeLoader)
    without_tests = [
        d
        for d in marked.of["default"].documents
        if "helm.sh/hook" not in d["metadata"].get("annotations", {})
    ]
    assert [d for d in plain if d] == without_tests


def test_everything_says_in_which_namespace_it_is(documents):
    for document in documents:
        namespace = document["metadata"].get("namespace")
        if document["kind"] in CLUSTER_SCOPED:
            assert namespace is None, document["kind"]
        else:
            assert namespace, document["kind"]


def test_nothing_is_there_twice_and_every_name_is_one(documents):
    seen = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
    assert len(seen) == len(set(seen))
    for kind, _, name in seen:
        assert re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", name), (kind, name)
        longest = 253 if kind in CLUSTER_SCOPED else 63
        assert len(name) <= longest, (kind, name)


def test_everything_has_the_labels_that_everybody_asks_for(documents):
    for document in documents:
        if document["kind"] in GENERATED:
            continue
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == RELEASE
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/name"] in ("fedtrain", "federated")
        assert labels["app.kubernetes.io/component"] in ("operator", "test", "tracker")
        assert labels["app.kubernetes.io/version"]
        assert labels["helm.sh/chart"].startswith("fedtrain-")


def nulls(thing: Any, path: str) -> Iterator[str]:
    if thing is None:
        yield path
    if isinstance(thing, list):
        thing = dict(enumerate(thing))
    for name, child in thing.items() if isinstance(thing, dict) else ():
        yield from nulls(child, f"{path}.{name}")


def test_no_field_is_left_empty(documents):
    assert [path for d in documents for path in nulls(d, d["kind"])] == []


def pods(documents: list[Document]) -> list[Document]:
    found = [d["spec"]["template"] for d in documents if d["kind"] == "Deployment"]
    return found + [d for d in documents if d["kind"] == "Pod"]


def test_every_pod_passes_the_restricted_standard_and_bounds_its_memory(documents):
    assert len(pods(documents)) >= 2, "the operator's and the test's"
    for pod in pods(documents):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume}
        assert kinds <= {"name", "emptyDir", "persistentVolumeClaim"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]


def is_of(part: str, document: Document) -> bool:
    return document["metadata"].get("labels", {}).get("app.kubernetes.io/component") == part


def labels_of(part: str, documents: list[Document]) -> dict[str, str]:
    return next(p["metadata"]["labels"] for p in pods(documents) if is_of(part, p))


def test_selectors_meet_the_operators_pods_and_no_others(documents):
    operator, test = labels_of("operator", documents), labels_of("test", documents)
    kinds = ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor")
    for document in documents:
        if document["kind"] not in kinds or is_of("tracker", document):
            continue
        spec = document["spec"]
        selector = spec.get("selector", spec.get("podSelector"))
        labels = selector.get("matchLabels", selector)
        assert labels.items() <= operator.items(), document["kind"]
        assert not labels.items() <= test.items(), document["kind"]


def test_the_serviceaccount_of_a_binding_is_that_of_its_pod(documents):
    for binding in (d for d in documents if d["kind"].endswith("RoleBinding")):
        part = binding["metadata"]["labels"]["app.kubernetes.io/component"]
        (subject,) = binding["subjects"]
        (pod,) = [p for p in pods(documents) if is_of(part, p)]
        assert subject["name"] == pod["spec"]["serviceAccountName"]
        assert subject["namespace"] == NAMESPACE


# One value at a time.


def test_every_value_has_another_one_to_try():
    missing = {".".join(p) for p, v in leaves() if not isinstance(v, bool)} - OTHERWISE.keys()
    assert not missing, "give it another value than its default in settings.OTHERWISE"


@pytest.mark.parametrize("path", [path for path, _ in leaves()], ids=".".join)
def test_no_value_is_without_effect(helm, tmp_path, path):
    """Where everything else is switched on; what hides behind another value, without that one."""
    base = put_all(EVERYTHING, crds__enabled=path[0] == "crds")
    for hidden, behind in HIDDEN.items():
        if ".".join(path) in (hidden, "metrics.podMonitor.enabled" if "pod" in hidden else ""):
            base = put_all(base, **behind)
    default = dict(leaves())[path]
    other = (not default) if isinstance(default, bool) else OTHERWISE[".".join(path)]
    assert other != default
    one, two = (_text(helm, tmp_path, put(base, path, value)) for value in (default, other))
    assert one != two


HIDDEN: dict[str, dict[str, Any]] = {
    "image.tag": {"image__digest": ""},
    "nameOverride": {"fullnameOverride": ""},
    "watch.clusterWide": {"watch__namespace": ""},
    "metrics.service.enabled": {"metrics__serviceMonitor__enabled": False},
    "tracking.image.tag": {"tracking__image__digest": ""},
    "metrics.podMonitor.enabled": {"metrics__serviceMonitor__enabled": False},
    "metrics.podMonitor.labels": {
        "metrics__serviceMonitor__enabled": False,
        "metrics__podMonitor__enabled": True,
    },
    "metrics.podMonitor.interval": {
        "metrics__serviceMonitor__enabled": False,
        "metrics__podMonitor__enabled": True,
    },
}


def _text(helm: Callable[..., str], folder, values: Document) -> str:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return helm("template", "fedtrain", CHART, "--namespace", NAMESPACE, "--values", file)


@pytest.mark.parametrize(("version", "good"), [("1.30.9", False), ("1.31.0", True)])
def test_an_older_kubernetes_is_refused(helm, version, good):
    words = ("template", "fedtrain", CHART, "--kube-version", version)
    if good:
        assert "kind: Deployment" in helm(*words)
    else:
        with pytest.raises(HelmError, match=r"requires kubeVersion: >=1\.31\.0-0"):
            helm(*words)


def test_the_budget_is_for_more_than_one_replica(rendered):
    for replicas, there in ((0, False), (1, False), (2, True)):
        documents = rendered({"replicas": replicas})
        assert any(d["kind"] == "PodDisruptionBudget" for d in documents) == there
    budget = only(documents, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_replicas_go_to_different_nodes_where_they_can(rendered):
    deployment = only(rendered(), "Deployment")["spec"]
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"] == deployment["selector"]


@pytest.mark.parametrize(
    ("kind", "field"), [("Service", "endpoints"), ("Pod", "podMetricsEndpoints")]
)
def test_a_monitor_scrapes_the_port_and_keeps_the_labels(rendered, kind, field):
    asked = {"enabled": True, "labels": {"release": "p"}, "interval": "1m"}
    name = f"{kind}Monitor"
    documents = rendered({"metrics": {f"{kind.lower()}Monitor": asked}})
    monitor = only(documents, name)
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert monitor["spec"][field] == [{"port": "metrics", "interval": "1m", "honorLabels": True}]
    assert not [d for d in documents if d["kind"].endswith("Monitor") and d["kind"] != name]


DIGITS = (
    ("priorityClassName", "123"),
    ("serviceAccount.name", "17"),
    ("tracking.mlflow.secretName", "42"),
    ("tracking.tensorboard.claimName", "7"),
)


@pytest.mark.parametrize("everywhere", ["true", "false"])
def test_names_of_digits_alone_stay_texts(helm: Callable[..., str], everywhere: str) -> None:
    """Names may be, and YAML would make numbers of them, which the API server refuses."""
    words = ["--set", f"watch.clusterWide={everywhere},tracking.enabled=true"]
    words += ["--set-string", ",".join(f"{name}={value}" for name, value in DIGITS)]
    words += ["--set-string", "tracking.mlflow.uri=http://m"]
    text = helm("template", "r", CHART, "--namespace", "1234", *words)
    for document in yaml.load_all(text, yaml.CSafeLoader):
        if document and document["kind"] not in GENERATED:
            numbers = set(_numbers(document))
            assert not numbers & {1234, 123, 17, 42, 7}, document["kind"]


def _numbers(value: Any) -> Iterator[object]:
    if isinstance(value, dict):
        yield from (key for key in value if not isinstance(key, str))
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, int):
        yield value
