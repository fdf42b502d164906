"""The tracker of the chart: what it may do, where it sends, and who is told that there is none."""

import re

import pytest
import yaml

from tests.chart.conftest import HelmError, only
from tests.chart.test_rbac import granted

NAME = "fedtrain-tracker"
BOTH = {
    "tracking.enabled": True,
    "tracking.mlflow.uri": "http://mlflow.example.com:5000",
    "tracking.tensorboard.claimName": "boards",
}
READS = {
    ("fedtrain.dev", "federatedtrainings", "get", ""),
    ("fedtrain.dev", "federatedtrainings", "list", ""),
    ("fedtrain.dev", "federatedrounds", "get", ""),
}


def pod(documents):
    return only(documents, "Deployment", NAME)["spec"]["template"]["spec"]


def policies(documents):
    return [d for d in documents if d["kind"].startswith("ValidatingAdmissionPolicy")]


def told(documents) -> list[str]:
    """What a training with tracking is warned of."""
    mine = [d for d in policies(documents) if d["metadata"]["name"] == f"fedtrain-system-{NAME}"]
    return [v["message"] for d in mine for v in d["spec"].get("validations", [])]


def test_it_is_there_only_if_it_is_asked_for(rendered):
    assert not [d for d in rendered() if d["kind"] == "Deployment" and "tracker" in str(d)]
    with pytest.raises(HelmError, match=r"set tracking\.mlflow\.uri or tracking\.tensorboard"):
        rendered({"tracking.enabled": True})


def test_it_may_read_trainings_and_rounds_and_nothing_else(rendered):
    assert granted(only(rendered(BOTH), "Role", NAME)) == READS
    documents = rendered(BOTH | {"watch.clusterWide": True})
    assert granted(only(documents, "ClusterRole", f"fedtrain-system-{NAME}")) == READS
    (subject,) = only(documents, "ClusterRoleBinding", f"fedtrain-system-{NAME}")["subjects"]
    assert subject["name"] == pod(documents)["serviceAccountName"] == NAME


def test_it_passes_the_restricted_standard(rendered):
    spec = pod(rendered(BOTH))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {tuple(v)[1] for v in spec["volumes"]} == {"emptyDir", "persistentVolumeClaim"}


def test_where_it_sends_is_a_value_of_the_chart_alone(rendered):
    documents = rendered(BOTH | {"tracking.mlflow.secretName": "login"})
    (container,) = pod(documents)["containers"]
    (uri, *secret) = container["env"]
    assert uri == {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow.example.com:5000"}
    assert {v["valueFrom"]["secretKeyRef"]["name"] for v in secret} == {"login"}
    assert container["args"] == ["--namespace=fedtrain-system", "--tensorboard=/tensorboard"]
    (container,) = pod(rendered(BOTH | {"watch.clusterWide": True}))["containers"]
    assert container["args"][0] == "--all-namespaces"
    with pytest.raises(HelmError, match=re.escape("/tracking/mlflow/uri")):
        rendered({"tracking.mlflow.uri": "file:///etc"})


def test_the_command_line_understands_what_it_is_given(rendered):
    from fedoperator.cli import main

    (container,) = pod(rendered(BOTH))["containers"]
    python, *words = [*container["command"], *container["args"]]
    assert (python, words[:2]) == ("python", ["-m", "fedoperator.cli"])
    options = main.parser().parse_args(words[2:])
    assert (options.all, options.namespace, str(options.tensorboard)) == (
        True,
        "fedtrain-system",
        "/tensorboard",
    )


def test_the_operator_is_no_tracker(rendered):
    """Their selectors meet no pod of each other's."""
    documents = rendered(BOTH)
    labels = only(documents, "Deployment", NAME)["spec"]["template"]["metadata"]["labels"]
    for kind, selector in (
        ("Service", lambda d: d["spec"]["selector"]),
        ("Deployment", lambda d: d["spec"]["selector"]["matchLabels"]),
    ):
        assert not selector(only(documents, kind)).items() <= labels.items()


def test_who_asks_for_what_is_not_set_up_is_told(rendered):
    assert [m.split(":")[0] for m in told(rendered())] == [
        "spec.tracking.mlflow",
        "spec.tracking.tensorboard",
    ]
    (one,) = told(rendered({"tracking.enabled": True, "tracking.mlflow.uri": "http://m"}))
    assert one.startswith("spec.tracking.tensorboard: nothing is written")
    assert told(rendered(BOTH)) == []
    assert told(rendered({"crds.enabled": False})) == []


@pytest.mark.apiserver
def test_kubectl_says_it_and_applies_all_the_same(rendered, kubectl):
    for document in policies(rendered({"watch.namespace": "default"})):
        if "tracker" in document["metadata"]["name"]:
            code, said = kubectl("apply", "--server-side", "-f", "-", document=document)
            assert code == 0, said
    training = {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": "warned"},
        "spec": {
            "rounds": 1,
            "trainer": {"image": "x", "command": ["python", "train.py"]},
            "participants": [{"name": "north"}],
            "exchange": {"size": "1Gi"},
            "tracking": {"mlflow": {}},
        },
    }
    said = ""
    for number in range(100):  # a policy acts some moments after it was made
        training["metadata"]["name"] = f"warned-{number}"
        code, said = kubectl("create", "-f", "-", document=training)
        assert code == 0, yaml.safe_dump(said)
        kubectl("delete", "fedt", f"warned-{number}", "--wait=false")
        if "Warning" in said:
            break
    assert "spec.tracking.mlflow: nothing is sent, as no MLflow server is set up here" in said
    assert "spec.tracking.tensorboard" not in said
