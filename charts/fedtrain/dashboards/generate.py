"""Grafana's page of one training, generated: `python charts/fedtrain/dashboards/generate.py`.

A page of twenty panels is twelve hundred lines of JSON, of which a hundred say something. These do.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

FILE = pathlib.Path(__file__).with_name("training.json")

OF_TRAINING = '{namespace="$namespace",training="$training"}'
OF_METRIC = '{namespace="$namespace",training="$training",metric=~"$metric"}'
RATE = "[$__rate_interval]"
WIDTH = 24
"""Columns of Grafana's grid."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture. queries: expression → legend; right: the legends drawn on an axis of their own.

    Two replicas may know a training for a moment, so every expression takes the `max` over them.
    """

    title: str
    says: str
    queries: Mapping[str, str]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    right: tuple[str, ...] = field(default=())
    options: Mapping[str, Any] = field(default_factory=dict)


def best(metric: str, by: str = "", of: str = OF_TRAINING) -> str:
    """The series of a training without the labels of the process that exported it."""
    return f"max by ({by}) (fedtrain_{metric}{of})" if by else f"max(fedtrain_{metric}{of})"


def rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate(fedtrain_operator_{metric}{RATE}))"


def quantile(share: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{metric}_seconds_bucket', labels)})"


_NAME = {"textMode": "name", "colorMode": "background", "graphMode": "none"}
_NUMBER = {"colorMode": "none", "graphMode": "none"}

PAGE: Mapping[str, tuple[Panel, ...]] = {
    "How far": (
        Panel(
            title="Phase",
            says="Blocked is not the end: the training's status says what to do.",
            queries={f"{best('training_phase', 'phase')} == 1": "{{phase}}"},
            kind="stat",
            width=4,
            height=4,
            options=_NAME,
        ),
        Panel(
            title="Reason",
            says="Why it is where it is; the status has the whole sentence.",
            queries={
                best("training_reason", "reason")
                + ' or on() label_replace(vector(0), "reason", "none", "", "")': "{{reason}}"
            },
            kind="stat",
            width=4,
            height=4,
            options={**_NAME, "colorMode": "none"},
        ),
        Panel(
            title="Rounds published",
            says="Of those asked for; a stop rule may end it earlier.",
            queries={f"{best('global_model_round')} / {best('training_rounds')}": "published"},
            kind="gauge",
            unit="percentunit",
            width=4,
            height=4,
        ),
        Panel(
            title="Round",
            says="In progress; 0 makes the initial model.",
            queries={best("training_round"): "round", best("training_rounds"): "asked for"},
            kind="stat",
            width=4,
            height=4,
            options={**_NUMBER, "textMode": "value_and_name"},
        ),
        Panel(
            title="Quorum misses",
            says="Of the round in progress.",
            queries={best("round_quorum_misses"): "misses"},
            kind="stat",
            width=4,
            height=4,
            options=_NUMBER,
        ),
        Panel(
            title="Started",
            says="When the training was first looked at.",
            queries={f"{best('training_started_timestamp_seconds')} * 1000": "started"},
            kind="stat",
            unit="dateTimeFromNow",
            width=4,
            height=4,
            options=_NUMBER,
        ),
        Panel(
            title="Rounds",
            says="In progress, published and evaluated.",
            queries={
                best("training_round"): "in progress",
                best("global_model_round"): "published",
                best("global_metric_round"): "evaluated",
            },
        ),
        Panel(
            title="Participants of the round",
            says="By state, in the round in progress.",
            queries={
                best("round_participants", "state"): "{{state}}",
                best("round_quarantined"): "Quarantined",
            },
            stacked=True,
        ),
        Panel(
            title="Phases",
            says="Which one, over time.",
            queries={f"{best('training_phase', 'phase')} == 1": "{{phase}}"},
            kind="state-timeline",
            options={"showValue": "never", "mergeValues": True},
        ),
    ),
    "How good": (
        Panel(
            title="Global model",
            says="Metrics of the last evaluated global model; on the right, which round's it is.",
            queries={
                best("global_metric", "metric", OF_METRIC): "{{metric}}",
                best("global_metric_round"): "round",
            },
            width=12,
            right=("round",),
        ),
        Panel(
            title="Participants",
            says="What each of them last reported, while it trained or evaluated.",
            queries={
                best("participant_metric", "participant, role, metric", OF_METRIC): (
                    "{{participant}} {{role}} {{metric}}"
                )
            },
            width=12,
        ),
    ),
    "Who": (
        Panel(
            title="Share of the mean",
            says="The last aggregation's weights: their sum is 1.",
            queries={best("participant_weight", "participant"): "{{participant}}"},
            unit="percentunit",
            stacked=True,
            width=6,
        ),
        Panel(
            title="Samples",
            says="What each participant last trained on.",
            queries={best("participant_samples", "participant"): "{{participant}}"},
            width=6,
        ),
        Panel(
            title="Training time",
            says="How long each participant last trained; the slowest sets the pace of a round.",
            queries={best("participant_seconds", "participant"): "{{participant}}"},
            unit="s",
            width=6,
        ),
        Panel(
            title="Failed attempts",
            says="That count against the retries, in this round.",
            queries={best("participant_attempt_failures", "participant"): "{{participant}}"},
            width=6,
        ),
    ),
    "Aggregation": (
        Panel(
            title="Time",
            says="Of the last aggregation: inspection and fold.",
            queries={best("aggregation_seconds"): "seconds"},
            unit="s",
        ),
        Panel(
            title="Read",
            says="From update files by the last aggregation.",
            queries={best("aggregation_bytes"): "bytes"},
            unit="bytes",
        ),
        Panel(
            title="Peak memory",
            says="A tile per participant, whatever the size of the model.",
            queries={best("aggregation_peak_memory_bytes"): "peak"},
            unit="bytes",
        ),
    ),
    "Operator (all trainings)": (
        Panel(
            title="Time of a look",
            says="One look reads, decides and writes.",
            queries={
                quantile(0.5, "look_duration"): "median",
                quantile(0.99, "look_duration"): "99 %",
            },
            unit="s",
        ),
        Panel(
            title="Failed looks",
            says="By reason; Conflict is harmless: somebody else wrote first.",
            queries={
                rate("look_failures_total", "reason")
                + ' or on() label_replace(vector(0), "reason", "none", "", "")': "{{reason}}"
            },
            unit="ops",
        ),
        Panel(
            title="Queue",
            says="Trainings known and due, and for how long the oldest has waited.",
            queries={
                "sum(fedtrain_operator_queue_keys)": "known",
                "sum(fedtrain_operator_queue_depth)": "due",
                "max(fedtrain_operator_queue_oldest_seconds)": "oldest, in seconds",
            },
            right=("oldest, in seconds",),
        ),
        Panel(
            title="Requests to the API server",
            says="Code 0: no answer came.",
            queries={
                rate("api_requests_total", "verb, resource, code"): (
                    "{{verb}} {{resource}} {{code}}"
                )
            },
            unit="reqps",
        ),
        Panel(
            title="Answers of the API server",
            says="Time until 99 of 100 were read.",
            queries={quantile(0.99, "api_request_duration", "verb"): "{{verb}}"},
            unit="s",
        ),
        Panel(
            title="Writes",
            says="Made for trainings.",
            queries={rate("writes_total", "what"): "{{what}}"},
            unit="ops",
        ),
        Panel(
            title="Leader",
            says="How many processes hold the lease: 1, or for a moment 0.",
            queries={"sum(fedtrain_operator_leader)": "leaders"},
            width=6,
        ),
        Panel(
            title="Event loop",
            says="By how much it was late; beyond 5 s the process is restarted.",
            queries={"max(fedtrain_operator_event_loop_lag_seconds)": "late"},
            unit="s",
            width=6,
        ),
        Panel(
            title="Watches",
            says="Since the one opened longest ago was opened; beyond 450 s it is restarted.",
            queries={"max(fedtrain_operator_watch_age_seconds)": "age"},
            unit="s",
            width=6,
        ),
        Panel(
            title="Memory",
            says="Of the operator's processes.",
            queries={
                "process_resident_memory_bytes and on (job, instance) fedtrain_operator_leader": (
                    "{{instance}}"
                )
            },
            unit="bytes",
            width=6,
        ),
    ),
}


def dashboard() -> Object:
    """The page as Grafana imports it."""
    return {
        "uid": "fedtrain-training",
        "title": "fedtrain: a training",
        "tags": ["fedtrain"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": [{"id": number, **panel} for number, panel in enumerate(_panels(), start=1)],
    }


def _variables() -> Iterator[Object]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    yield _labels("namespace", "fedtrain_training_phase")
    yield _labels("training", 'fedtrain_training_phase{namespace="$namespace"}')
    several = {"multi": True, "includeAll": True, "allValue": ".*"}
    everything = {"current": {"text": ["All"], "value": ["$__all"]}}
    yield {
        **_labels("metric", f"fedtrain_participant_metric{OF_TRAINING}"),
        **several,
        **everything,
    }


def _labels(label: str, series: str) -> Object:
    query = f"label_values({series}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": _datasource(),
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "sort": 1,
    }


def _datasource() -> Object:
    return {"type": "prometheus", "uid": "${datasource}"}


def _panels() -> Iterator[Object]:
    """Row after row, each from the left; a panel that does not fit begins a new line."""
    y = 0
    for title, panels in PAGE.items():
        yield {
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }
        x, y, height = 0, y + 1, 0
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            yield _panel(panel, x, y)
            x, height = x + panel.width, max(height, panel.height)
        y += height


def _panel(panel: Panel, x: int, y: int) -> Object:
    defaults: Object = {"unit": panel.unit, "min": 0}
    if panel.kind == "gauge":
        defaults["max"] = 1
    if panel.kind == "timeseries":
        custom: Object = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "auto"}
        if panel.stacked:
            custom |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
        defaults["custom"] = custom
    if panel.title in ("Global model", "Participants"):
        del defaults["min"]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _datasource(),
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": defaults, "overrides": [_right(name) for name in panel.right]},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _datasource(),
                "editorMode": "code",
                "expr": expression,
                "legendFormat": legend,
                "instant": panel.kind in ("stat", "gauge"),
                "range": panel.kind not in ("stat", "gauge"),
            }
            for number, (expression, legend) in enumerate(panel.queries.items())
        ],
    }


def _options(panel: Panel) -> Object:
    last: Object = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if panel.kind in ("stat", "gauge"):
        return {**last, **panel.options}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}, **panel.options}


def _right(legend: str) -> Object:
    properties = [
        {"id": "custom.axisPlacement", "value": "right"},
        {"id": "custom.fillOpacity", "value": 0},
        {"id": "unit", "value": "short"},
    ]
    return {"matcher": {"id": "byName", "options": legend}, "properties": properties}


def render() -> str:
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
