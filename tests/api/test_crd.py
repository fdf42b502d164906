"""The generated CRDs: committed, structural, readable, and what a real API server makes of them."""

import json
import pathlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from fedoperator.api import crd
from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.cli import crds

ROOT = pathlib.Path(__file__).parent.parent.parent
BOTH = pytest.mark.parametrize("definition", [crd.training_crd(), crd.round_crd()])


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema below one, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}[*]")


def root_of(definition: dict[str, Any]) -> dict[str, Any]:
    (version,) = definition["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def test_the_committed_files_are_the_generated_ones(capsys) -> None:
    assert crds.main([str(ROOT), "--check"]) == 0, capsys.readouterr().out


def test_a_file_that_was_edited_by_hand_is_found(tmp_path, capsys) -> None:
    assert crds.main([str(tmp_path)]) == 0
    assert crds.main([str(tmp_path), "--check"]) == 0
    file = tmp_path / "manifests" / "crds" / "federatedrounds.yaml"
    file.write_text(file.read_text().replace("fedr", "feds"))
    assert crds.main([str(tmp_path), "--check"]) == 1
    assert "-    - feds" in capsys.readouterr().out


def test_the_chart_holds_the_same_definitions_behind_its_switches() -> None:
    text = (ROOT / "charts" / "fedtrain" / "templates" / "crds.yaml").read_text()
    lines = [line for line in text.splitlines() if "{{-" in line]
    assert lines[0] == "{{- if .Values.crds.enabled }}"
    assert lines[-1] == "{{- end }}"
    assert lines[1:-1] == ["  {{- if .Values.crds.keep }}", "  {{- end }}"] * 2
    plain = "".join(line for line in text.splitlines(True) if "{{-" not in line)
    documents = list(yaml.safe_load_all(plain))
    for document in documents:
        keep = document["metadata"].pop("annotations")
        assert keep == {"helm.sh/resource-policy": "keep"}
    assert documents == [crd.training_crd(), crd.round_crd()]


@BOTH
def test_nothing_in_a_schema_is_unbounded_or_unstructured(definition) -> None:
    spec = root_of(definition)["properties"]["spec"]
    for path, node in nodes(spec):
        assert not {"$ref", "$defs", "allOf", "oneOf", "const"} & node.keys(), path
        kind = node.get("type")
        assert kind or node.get("x-kubernetes-int-or-string"), path
        if kind == "string":
            assert "enum" in node or "maxLength" in node, path
        if kind == "array":
            assert "maxItems" in node, path
            assert "x-kubernetes-list-type" in node, path
        if kind == "integer" and path != ".generation":
            assert "minimum" in node, path
        if "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields"):
            assert "maxProperties" in node, path


@BOTH
def test_status_lists_are_atomic_and_only_conditions_are_keyed(definition) -> None:
    status = root_of(definition)["properties"]["status"]
    for path, node in nodes(status):
        if node.get("type") == "array":
            expected = "map" if path == ".conditions" else "atomic"
            assert node["x-kubernetes-list-type"] == expected, path
        assert "default" not in node, path


@BOTH
def test_every_field_explains_itself(definition) -> None:
    silent = [path for path, node in nodes(root_of(definition)) if "description" not in node]
    values = ("[]", "[*]", ".metadata")
    assert [path for path in silent if not path.endswith(values)] == []


def test_the_docstring_of_a_field_wins_over_that_of_its_type() -> None:
    spec = crd.spec_schema()["properties"]
    trainer = spec["participants"]["items"]["properties"]["trainer"]
    assert trainer["description"] == "Only what differs from spec.trainer."
    assert spec["trainer"]["description"] == "The default for every participant."


def test_a_bound_that_is_itself_out_of_reach_is_written_as_kubernetes_reads_it() -> None:
    strategy = crd.spec_schema()["properties"]["strategy"]["properties"]
    assert (strategy["momentum"]["maximum"], strategy["momentum"]["exclusiveMaximum"]) == (1, True)
    rate = strategy["learningRate"]
    assert (rate["minimum"], rate["exclusiveMinimum"]) == (0, True)


def test_null_is_a_value_only_where_it_is_a_choice() -> None:
    nullable = [path for path, node in nodes(crd.spec_schema()) if node.get("nullable")]
    assert nullable == [".security.runAsUser", ".security.runAsGroup", ".security.fsGroup"]


@pytest.mark.apiserver
def test_both_definitions_are_established_and_structural(kubectl) -> None:
    for name in ("federatedtrainings.fedtrain.dev", "federatedrounds.fedtrain.dev"):
        found = kubectl.read("crd", name)["status"]["conditions"]
        conditions = {condition["type"]: condition["status"] for condition in found}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.apiserver
def test_the_design_example_is_accepted_and_completed(the_design_example, kubectl) -> None:
    document = {**the_design_example, "metadata": {"name": "example"}}
    code, reply = kubectl("create", "--validate=strict", "-f", "-", document=document)
    assert code == 0, reply
    stored = kubectl.read("fedt", "example")
    spec = stored["spec"]
    assert spec["participants"][1]["data"]["mountPath"] == "/data"
    assert spec["exchange"]["accessModes"] == ["ReadWriteMany"]
    assert spec["security"] == {"runAsUser": None, "runAsGroup": None, "fsGroup": 1000}
    assert spec["parameters"] == document["spec"]["parameters"]
    training = Training.from_object(stored)
    assert training.spec.to_dict() == spec
    assert Training.from_object({**stored, "spec": document["spec"]}).spec == training.spec


@pytest.mark.apiserver
def test_the_least_training_gets_every_default(a_training, kubectl) -> None:
    document = a_training(name="least")
    code, reply = kubectl("create", "--validate=strict", "-f", "-", document=document)
    assert code == 0, reply
    stored = kubectl.read("fedt", "least")
    assert stored["spec"] == Training.from_object(stored).spec.to_dict()
    assert stored["spec"]["model"] == {"init": {}}
    assert stored["spec"]["quorum"] == {"minimum": 1, "onMiss": "Retry"}
    assert stored["spec"]["strategy"] == {"name": "FedAvg"}
    assert stored["spec"]["aggregation"] == {"shards": 1, "precision": "Float32"}


def a_thousand() -> list[dict[str, Any]]:
    """As unlike each other, and as long, as a real federation's participants may be."""
    return [
        {
            "name": f"hospital-{index:04d}",
            "trainer": {
                "nodes": 2,
                "args": ["--site", str(index)],
                "env": [{"name": f"SITE_{n}", "value": str(index)} for n in range(2)],
                "resources": {"limits": {"nvidia.com/gpu": 8}},
                "volumes": [{"name": "v", "mountPath": "/v", "configMap": {"name": f"c{index}"}}],
            },
            "data": {"claimName": f"hospital-{index:04d}-data"},
            "scratch": {"claimName": f"hospital-{index:04d}-work"},
        }
        for index in range(1000)
    ]


@pytest.mark.apiserver
def test_a_thousand_participants_are_accepted_started_and_changed(a_training, kubectl) -> None:
    document = a_training(
        name="thousand",
        participants=a_thousand(),
        quorum={"minimum": 600},
        selection={"fraction": 0.6},
        evaluation={"by": "hospital-0999"},
        strategy={"name": "Bulyan", "byzantine": 149},
        aggregation={"shards": 64},
        compression={"codec": "TopK"},
    )
    code, reply = kubectl("create", "--validate=strict", "-f", "-", document=document)
    assert code == 0, reply
    words = ("--subresource=status", "--type=merge", '-p={"status":{"round":0}}')
    code, reply = kubectl("patch", "fedt", "thousand", *words)
    assert code == 0, reply
    managed = kubectl.read("fedt", "thousand", "--show-managed-fields")["metadata"]["managedFields"]
    assert len(json.dumps(managed)) < 150_000
    document["spec"]["participants"][7]["data"]["claimName"] = "another"
    code, reply = kubectl("replace", "-f", "-", document=document)
    assert "those that are there already change only while suspended" in reply
    document["spec"]["suspend"] = True
    code, reply = kubectl("replace", "-f", "-", document=document)
    assert code == 0, reply


@pytest.mark.apiserver
def test_the_table_answers_how_far_how_good_why_not(a_training, kubectl) -> None:
    kubectl("create", "-f", "-", document=a_training(name="table"))
    status = {
        "phase": "Training",
        "round": 3,
        "progress": "3/10",
        "reported": "1/2",
        "score": "accuracy 0.91",
        "reason": "Unschedulable",
    }
    words = ("--subresource=status", "--type=merge", f"-p={json.dumps({'status': status})}")
    assert kubectl("patch", "fedt", "table", *words)[0] == 0
    header, row = kubectl("get", "fedt", "table")[1].splitlines()
    assert header.split() == ["NAME", "PHASE", "ROUND", "PARTICIPANTS", "METRIC", "REASON", "AGE"]
    assert row.split()[:-1] == [
        "table",
        "Training",
        "3/10",
        "1/2",
        "accuracy",
        "0.91",
        "Unschedulable",
    ]


def a_round() -> dict[str, Any]:
    return {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedRound",
        "metadata": {"name": "digits-00003"},
        "spec": {"training": "digits", "round": 3, "generation": 1, "invited": ["north", "south"]},
    }


@pytest.mark.apiserver
def test_a_round_is_written_once_and_read_like_a_lab_book(kubectl) -> None:
    assert kubectl("create", "--validate=strict", "-f", "-", document=a_round())[0] == 0
    model = {"round": 3, "path": "digits-1a2b3c4d/global/3/1/model.safetensors", "digest": "abc"}
    status = {
        "phase": "Published",
        "accepted": "2/2",
        "score": "loss 0.3",
        "worst": "north 0.4",
        "shares": "north 80 (100%)",
        "startedAt": "2026-01-31T12:00:00.250Z",
        "participants": [{"name": "north", "state": "Accepted", "metrics": {"loss": 0.25}}],
        "globalModel": model,
    }
    words = ("--subresource=status", "--type=merge", f"-p={json.dumps({'status': status})}")
    code, reply = kubectl("patch", "fedr", "digits-00003", *words)
    assert code == 0, reply
    stored = kubectl.read("fedr", "digits-00003")
    read = Record.from_object(stored).status
    assert (read.participants[0].state, read.participants[0].metrics) == (
        "Accepted",
        {"loss": 0.25},
    )
    assert read.started_at == datetime(2026, 1, 31, 12, 0, 0, 250_000, UTC)
    assert read.global_model.to_dict() == model
    header, row = kubectl("get", "fedr", "digits-00003")[1].splitlines()
    columns = ["NAME", "ROUND", "PHASE", "ACCEPTED", "METRIC", "WORST", "SAMPLES (SHARE)"]
    columns += ["DIGEST", "AGE"]
    assert re.split(r"\s{2,}", header.strip()) == columns
    cells = ["digits-00003", "3", "Published", "2/2", "loss 0.3", "north 0.4"]
    cells += ["north 80 (100%)", "abc"]
    assert re.split(r"\s{2,}", row.strip())[:-1] == cells
    changed = a_round() | {"spec": a_round()["spec"] | {"invited": ["north"]}}
    code, reply = kubectl("replace", "-f", "-", document=changed)
    assert code == 1
    assert "spec: Invalid value: is written once, when the round begins" in reply


@pytest.mark.apiserver
def test_explain_reads_well(kubectl) -> None:
    answer = kubectl("explain", "federatedtrainings.spec.participants.trainer.nodes")[1]
    assert "Pods of one participant; 1 if left out." in answer
    assert "never leaves its owners" in kubectl("explain", "fedt")[1]


def test_no_field_of_a_spec_leads_to_another_namespace() -> None:
    spec = root_of(crd.training_crd())["properties"]["spec"]
    paths = [path for path, _ in nodes(spec)]
    assert ".exchange.claimName" in paths
    assert ".trainer.env[].valueFrom.secretKeyRef.name" in paths
    assert not [path for path in paths if "namespace" in path.lower()]
