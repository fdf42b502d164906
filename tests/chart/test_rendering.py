"""The chart on paper: what it renders to, refuses, and says next."""

import re

import yaml

import fedtrain
from fedoperator.cli import installed
from fedoperator.settings import Settings
from manifests import render
from tests.chart.conftest import CHART, only


def test_helm_has_nothing_to_complain_about(helm):
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


def test_the_chart_has_the_version_of_the_package():
    chart = (CHART / "Chart.yaml").read_text()
    versions = set(re.findall(r"^(?:version|appVersion): (\S+)$", chart, re.MULTILINE))
    assert versions == {fedtrain.__version__}


def test_the_operator_understands_its_environment(rendered):
    values = {"image": {"repository": "here/controller", "tag": "7"}, "workers": 9}
    settings = _settings(rendered({**values, "watch": {"namespace": "hospitals"}}))
    assert settings.controller_image == "here/controller:7"
    assert (settings.namespace, settings.lease_namespace) == ("hospitals", "fedtrain-system")
    assert (settings.workers, settings.lease_name, settings.port) == (9, "fedtrain", 8080)
    assert settings.identity == "fedtrain-5d-x7"


def test_without_a_word_the_namespace_of_the_release_is_watched(rendered):
    assert _settings(rendered()).namespace == "fedtrain-system"


def test_all_namespaces_are_watched_only_if_asked_for(rendered):
    assert _settings(rendered({"watch": {"clusterWide": True}})).namespace == ""


def _settings(documents) -> Settings:
    (container,) = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    fields = {"metadata.namespace": "fedtrain-system", "metadata.name": "fedtrain-5d-x7"}
    return Settings.from_environment(
        {
            variable["name"]: variable["value"]
            if "value" in variable
            else fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            for variable in container["env"]
        }
    )


def test_a_digest_wins_over_a_tag(rendered):
    digest = f"sha256:{'a' * 64}"
    documents = rendered({"image": {"repository": "x/y", "tag": "1", "digest": digest}})
    (container,) = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"x/y@{digest}"


def test_probes_and_scrapes_go_to_the_port_that_is_listened_on(rendered):
    documents = rendered({"metrics": {"port": 9999, "serviceMonitor": {"enabled": True}}})
    (container,) = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9999}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    (port,) = only(documents, "Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (9999, "metrics")
    (endpoint,) = only(documents, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True, "or a training's namespace becomes the operator's"


def test_pods_have_your_labels_beside_their_own(rendered):
    template = only(rendered({"podLabels": {"team": "a"}}), "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert labels["team"] == "a"
    assert labels["fedtrain.dev/component"] == "operator", "hubs let it in by this one"


def annotations(document) -> dict[str, str]:
    return document["metadata"].get("annotations", {})


def test_what_is_switched_off_is_not_there(rendered):
    documents = rendered(
        {
            "crds": {"enabled": False},
            "rbac": {"create": False, "aggregate": False},
            "serviceAccount": {"create": False, "name": "theirs"},
            "metrics": {"service": {"enabled": False}},
            "dashboard": {"enabled": False},
        }
    )
    (deployment,) = (d for d in documents if "helm.sh/hook" not in annotations(d))
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"


def test_the_definitions_are_kept_only_as_long_as_one_wants(rendered):
    def kept(documents):
        definitions = [d for d in documents if d["kind"] == "CustomResourceDefinition"]
        assert len(definitions) == 2
        return [d["metadata"].get("annotations", {}) for d in definitions]

    assert kept(rendered()) == [{"helm.sh/resource-policy": "keep"}] * 2
    assert kept(rendered({"crds": {"keep": False}})) == [{}] * 2


def test_every_setting_of_a_pod_arrives(rendered):
    values = {
        "imagePullSecrets": [{"name": "pull"}],
        "nodeSelector": {"kind": "infra"},
        "tolerations": [{"key": "infra", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "priorityClassName": "high",
        "terminationGracePeriodSeconds": 7,
    }
    pod = only(rendered(values), "Deployment")["spec"]["template"]["spec"]
    assert {name: pod[name] for name in values} == values


def test_names_follow_the_release(rendered):
    names = {d["metadata"]["name"] for d in rendered({"fullnameOverride": "ours"})}
    assert "fedtrain" not in names
    assert {"ours", "ours-lease", "ours-dashboard"} <= names


def test_the_plain_manifest_is_what_the_chart_renders_to(helm_program):
    assert render.FILE.read_text() == render.render(helm_program), (
        "manifests/install.yaml is stale: run `python -m manifests.render`"
    )


def test_the_plain_manifest_runs_no_test():
    documents = yaml.load_all(render.FILE.read_text(), yaml.CSafeLoader)
    assert [d["kind"] for d in documents if d and "helm.sh/hook" in annotations(d)] == []


# `helm test`, on paper.


def test_helm_test_asks_all_pods_of_the_operator_at_the_port_they_listen_on(rendered):
    documents = rendered({"metrics": {"port": 9999, "service": {"enabled": False}}})
    service = only(documents, "Service", "fedtrain-replicas")["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    pod = only(documents, "Pod", "fedtrain-test")
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-m", installed.__name__]
    assert container["args"] == ["fedtrain-replicas", "9999"]
    assert container["args"][0] != pod["metadata"]["name"], "/etc/hosts has the pod's own name"
    (operator,) = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == operator["image"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["activeDeadlineSeconds"] > 2 * installed.PATIENCE


def test_the_name_comes_before_the_pod_that_asks_for_it(rendered):
    hooks = [d for d in rendered() if "helm.sh/hook" in annotations(d)]
    assert {annotations(d)["helm.sh/hook"] for d in hooks} == {"test"}
    weights = {d["kind"]: int(annotations(d).get("helm.sh/hook-weight", "0")) for d in hooks}
    assert weights["Service"] < weights["Pod"]
