"""The chart on paper: what it renders to, refuses, and says next."""

import json
import re

import pytest
import yaml

import fedtrain
from fedoperator.settings import Settings
from manifests import render
from tests.chart.conftest import CHART, HelmError, only


def test_helm_has_nothing_to_complain_about(helm):
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


def test_the_chart_has_the_version_of_the_package():
    chart = (CHART / "Chart.yaml").read_text()
    versions = set(re.findall(r"^(?:version|appVersion): (\S+)$", chart, re.MULTILINE))
    assert versions == {fedtrain.__version__}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"image": {"tagg": "1"}}, "additional properties 'tagg' not allowed"),
        ({"metrics": {"serviceMonitor": {"on": True}}}, "additional properties 'on' not allowed"),
        ({"metrics": {"port": 80}}, "/metrics/port"),
        ({"watch": {"clusterWide": True, "namespace": "a"}}, "/watch/namespace"),
        ({"logLevel": "LOUD"}, "/logLevel"),
    ],
)
def test_a_value_that_means_nothing_is_refused(rendered, values, said):
    with pytest.raises(HelmError, match=re.escape(said)):
        rendered(values)


def test_every_value_is_in_the_schema_and_has_a_default():
    def names(schema, prefix=""):
        for name, child in schema.get("properties", {}).items():
            yield f"{prefix}{name}"
            yield from names(child, f"{prefix}{name}.")

    def given(values, prefix=""):
        for name, child in values.items():
            yield f"{prefix}{name}"
            if isinstance(child, dict):
                yield from given(child, f"{prefix}{name}.")

    in_schema = set(names(json.loads((CHART / "values.schema.json").read_text()))) - {"global"}
    in_values = set(given(yaml.safe_load((CHART / "values.yaml").read_text())))
    assert not in_schema - in_values
    free = ("resources.", "tracking.resources.", "dashboard.labels.", "dashboard.annotations.")
    assert not {name for name in in_values - in_schema if not name.startswith(free)}


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


def test_the_operators_pod_passes_the_restricted_standard(rendered):
    pod = only(rendered(), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for field in ("hostNetwork", "hostPID", "hostIPC", "volumes"):
        assert not pod.get(field)
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


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


def test_selectors_meet_their_pods(rendered):
    documents = rendered({"podLabels": {"team": "a"}})
    labels = only(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "a"
    for selector in (
        only(documents, "Deployment")["spec"]["selector"]["matchLabels"],
        only(documents, "Service")["spec"]["selector"],
    ):
        assert selector.items() <= labels.items()


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
    (deployment,) = documents
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
        "topologySpreadConstraints": [{"maxSkew": 1}],
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
