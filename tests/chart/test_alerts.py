"""Each alert fires after its time, ends, and has its page; and Prometheus takes all of them."""

import shutil
import subprocess

import pytest
import yaml

from tests.chart.conftest import CHART, ROOT, only

RULES = CHART / "alerts" / "rules.yaml"
TESTS = ROOT / "tests" / "chart" / "alerts_test.yaml"
PAGES = ROOT / "docs" / "how-to" / "runbooks"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found


def test_every_alert_fires_when_it_is_to_and_ends(promtool, tmp_path):
    file = tmp_path / "alerts.yaml"
    file.write_text(TESTS.read_text().replace("RULES", str(RULES)))
    result = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_is_tested_before_while_and_after_it_fires():
    tested: dict[str, list[str]] = {name: [] for name in ALERTS}
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for one in test["alert_rule_test"]:
            tested[one["alertname"]].append("fires" if one.get("exp_alerts") else "silent")
    for name, states in tested.items():
        first = states.index("fires")
        assert "silent" in states[first:], f"{name} never ends"
        assert "silent" in states[:first] or name == "FedtrainExchangeNearlyFull", name


def test_prometheus_has_nothing_to_say_about_the_rules(promtool):
    result = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_its_page_and_every_page_its_alert():
    assert {path.stem for path in PAGES.glob("*.md")} == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"].endswith(f"/how-to/runbooks/{name}/")
        headings = [
            line for line in (PAGES / f"{name}.md").read_text().splitlines() if "## " in line
        ]
        wanted = ["## What it means", "## How to see it", "## What to do", "## How it ends"]
        assert headings == wanted, name


def test_every_alert_says_how_grave_it_is_and_about_whom():
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")
        about = rule["annotations"]["description"]
        if name != "FedtrainOperatorNotReconciling":  # which is about all of them
            assert "$labels.namespace" in about, name
            assert "$labels.training" in about, name


def test_the_chart_makes_a_rule_of_them_only_if_asked_for(rendered):
    assert not [d for d in rendered() if d["kind"] == "PrometheusRule"]
    asked = {"metrics.prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}}
    rule = only(rendered(asked), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
