"""The dashboard asks only for what the operator really exports."""

import json
import runpy
import shutil
import subprocess
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fedoperator.__main__ import Operator
from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Assignment, Measured, Record, RoundSpec, RoundStatus
from fedoperator.api.status import TrainingStatus
from fedoperator.cluster.telemetry import Seen
from fedoperator.settings import Settings
from tests.chart.conftest import CHART, only
from tests.chart.expressions import DASHBOARD, expressions

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def a_training_that_shows_everything() -> Seen:
    north = Assignment(
        name="north",
        state="Accepted",
        samples=100,
        weight=1.0,
        seconds=3.0,
        failures=1,
        metrics={"loss": 0.5},
    )
    record = Record(
        name="digits-00001",
        uid="u",
        resource_version="1",
        spec=RoundSpec(training="digits", round=1, invited=["north"]),
        status=RoundStatus(participants=[north], evaluation=[north], measured=Measured(bytes=1)),
    )
    status = TrainingStatus(
        phase="Blocked",
        reason="ImagePullFailed",
        round=1,
        started_at=NOW,
        global_model=GlobalModel(round=1, path="global/1/1/model.safetensors", digest="0"),
        evaluated_round=1,
        metrics={"accuracy": 0.9},
    )
    return Seen(status=status, rounds=10, records=(record,))


@pytest.fixture
async def exported() -> dict[str, set[str]]:
    """Every series of an operator that has seen something of everything → its labels."""
    transport, watched = SimpleNamespace(), SimpleNamespace()
    settings = Settings(controller_image="controller:1", lease_namespace="fedtrain-system")
    operator = Operator(settings, transport, watched)
    telemetry = operator._telemetry
    telemetry.seen(("hospitals", "digits"), a_training_that_shows_everything())
    telemetry.looked(0.1, failed="Conflict")
    telemetry.requested("GET", "jobs", "200", 0.1)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(telemetry.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


ASKED = list(expressions("hospitals", "digits"))


def test_every_expression_reads_series_that_are_exported(exported):
    for expression in ASKED:
        assert expression.metrics, expression
        assert expression.metrics <= exported.keys(), expression


def test_every_legend_shows_labels_that_are_there(exported):
    of_the_scrape = {"instance", "job"}
    for expression in ASKED:
        labels = set.union(*(exported[name] for name in expression.metrics)) | of_the_scrape
        assert expression.labels <= labels, expression


def test_every_series_of_a_training_is_shown_somewhere(exported):
    shown = set.union(*(expression.metrics for expression in ASKED))
    of_trainings = {name for name, labels in exported.items() if "training" in labels}
    assert of_trainings == {name for name in shown if not name.startswith(("fedtrain_op", "proc"))}


def test_prometheus_understands_every_expression(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    rules = [{"record": f"asked:{n}", "expr": e.text} for n, e in enumerate(ASKED)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    result = subprocess.run(
        [promtool, "check", "rules", "--lint=none", file], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_page_is_the_one_that_is_generated():
    generate = runpy.run_path(str(CHART / "dashboards" / "generate.py"))
    assert generate["render"]() == DASHBOARD.read_text(), (
        "the dashboard is stale: run `python charts/fedtrain/dashboards/generate.py`"
    )


def test_panels_neither_overlap_nor_leave_the_page():
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_grafanas_sidecar_finds_the_page_whole(rendered):
    config = only(rendered(), "ConfigMap", "fedtrain-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["annotations"] == {"grafana_folder": "fedtrain"}
    (page,) = config["data"].values()
    assert json.loads(page) == json.loads(DASHBOARD.read_text())
