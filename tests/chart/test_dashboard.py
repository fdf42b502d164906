"""The dashboards ask only for what the operator really exports."""

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
from fedoperator.api.round import (
    Accelerators,
    Assignment,
    Measured,
    Range,
    Record,
    RoundSpec,
    RoundStatus,
)
from fedoperator.api.status import TrainingStatus
from fedoperator.cluster.telemetry import Seen
from fedoperator.settings import Settings
from tests.chart.conftest import CHART, only
from tests.chart.expressions import PAGES, expressions

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def a_round(number: int, **status: object) -> Record:
    return Record(
        name=f"digits-{number:05d}",
        uid="u",
        resource_version="1",
        spec=RoundSpec(training="digits", round=number, invited=["north"]),
        status=RoundStatus(**status),
    )


def a_training_that_shows_everything() -> Seen:
    north = Assignment(
        name="north",
        state="Accepted",
        samples=100,
        weight=1.0,
        seconds=3.0,
        failures=1,
        norm=1.0,
        cosine=1.0,
        metrics={"loss": 0.5},
    )
    of_all = Range(least=1, median=1, most=1)
    measured = Measured(
        bytes=1, norms=of_all, cosines=of_all, exchange_free=1, exchange_size=2, seconds=1
    )
    published = a_round(
        1,
        phase="Published",
        participants=[north],
        evaluation=[north],
        measured=measured,
        durations={"Training": 4},
        accelerators=Accelerators(held=2, used=1),
    )
    lost = Assignment(name="south", state="Failed", reason="ScriptFailed")
    current = a_round(2, participants=[lost], started_at=NOW)
    past = RoundSpec(
        training="digits", round=2, invited=["south"], losing={"south": 1}, quarantined={"east": 3}
    )
    records = (published, current.model_copy(update={"spec": past}))
    status = TrainingStatus(
        phase="Blocked",
        reason="ImagePullFailed",
        round=1,
        started_at=NOW,
        global_model=GlobalModel(round=1, path="global/1/1/model.safetensors", digest="0"),
        evaluated_round=1,
        metrics={"accuracy": 0.9},
    )
    return Seen(status=status, rounds=10, records=records)


@pytest.fixture
async def exported() -> dict[str, set[str]]:
    """Every series of an operator that has seen something of everything → its labels."""
    transport, watched = SimpleNamespace(), SimpleNamespace()
    settings = Settings(controller_image="controller:1", lease_namespace="fedtrain-system")
    operator = Operator(settings, transport, watched)
    telemetry = operator._telemetry
    telemetry.seen(("hospitals", "digits"), a_training_that_shows_everything())
    telemetry.looked(0.1, failed="Conflict")
    telemetry.waited(0.1, again=True)
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


def test_every_series_is_shown_somewhere(exported):
    shown = set.union(*(expression.metrics for expression in ASKED))
    ours = {name for name in exported if name.startswith("fedtrain_")}
    parts_of_histograms = {n for n in ours if n.endswith(("_sum", "_count"))}
    assert ours - parts_of_histograms == {n for n in shown if n.startswith("fedtrain_")}


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


def test_the_pages_are_those_that_are_generated(monkeypatch):
    monkeypatch.syspath_prepend(CHART / "dashboards")
    generate = runpy.run_path(str(CHART / "dashboards" / "generate.py"))
    pages = {page.name: page.read_text() for page in PAGES}
    assert generate["render"]() == pages, "the dashboards are stale: run `make manifests`"


def panels():
    for page in PAGES:
        yield from ((page.name, p) for p in json.loads(page.read_text())["panels"])


def test_every_panel_says_what_it_shows():
    for page, panel in panels():
        assert panel["type"] == "row" or panel.get("description"), (page, panel["title"])


def test_the_data_source_is_whatever_the_user_chooses():
    for page, panel in panels():
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", (page, panel["title"])
    variables = [v["name"] for v in json.loads(PAGES[0].read_text())["templating"]["list"]]
    assert variables == ["datasource", "namespace", "training", "metric"]


def test_panels_neither_overlap_nor_leave_the_page():
    taken: dict[tuple[str, int, int], str] = {}
    for page, panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((page, x, y), panel["title"]) == panel["title"]


def test_grafanas_sidecar_finds_the_pages_whole(rendered):
    config = only(rendered(), "ConfigMap", "fedtrain-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["annotations"] == {"grafana_folder": "fedtrain"}
    found = {name: json.loads(text) for name, text in config["data"].items()}
    assert found == {f"fedtrain-{page.name}": json.loads(page.read_text()) for page in PAGES}
