"""Grafana's pages, from `pages.py` by Grafana's own library; `make manifests` runs it."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pages
from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    gauge,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

FOLDER = pathlib.Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BUILDERS = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "gauge": gauge.Panel,
    "statetimeline": statetimeline.Panel,
}
ROUND_PUBLISHED = f"max(changes(fedtrain_global_model_round{pages.OF_TRAINING}[1m])) > 0"
"""The moments that are marked in every panel of a training."""


def training() -> dashboard.Dashboard:
    page = _page("training", "fedtrain: a training", pages.TRAINING)
    page.with_variable(_labels("namespace", "fedtrain_training_phase"))
    page.with_variable(_labels("training", 'fedtrain_training_phase{namespace="$namespace"}'))
    everything = VariableOption(text=["All"], value=["$__all"])
    metric = _labels("metric", f"fedtrain_participant_metric{pages.OF_TRAINING}")
    metric.multi(True).include_all(True).all_value(".*").current(everything)
    page.with_variable(metric)
    marks = dashboard.AnnotationQuery().name("Round published").datasource(SOURCE)
    page.annotation(marks.enable(True).icon_color("blue").expr(ROUND_PUBLISHED))
    return page


def operator() -> dashboard.Dashboard:
    return _page("operator", "fedtrain: the operator", pages.OPERATOR)


def _page(uid: str, title: str, rows: Mapping[str, tuple[pages.Panel, ...]]) -> dashboard.Dashboard:
    page = dashboard.Dashboard(title).uid(f"fedtrain-{uid}").tags(["fedtrain"])
    page.refresh("10s").time("now-1h", "now").tooltip(DashboardCursorSync.CROSSHAIR)
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    page.with_variable(source)
    number = 0
    for row, panels in rows.items():
        page.with_row(dashboard.Row(row))
        for panel in panels:
            number += 1
            page.with_panel(_panel(panel).id(number))
    return page


def _labels(label: str, series: str) -> dashboard.QueryVariable:
    query: dict[str, object] = {"query": f"label_values({series}, {label})", "refId": label}
    variable = dashboard.QueryVariable(label).label(label.capitalize()).datasource(SOURCE)
    variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.query(query).sort(VariableSort.ALPHABETICAL_ASC)


def _panel(panel: pages.Panel) -> Any:
    """A builder; the kinds have no type in common that knows these verbs."""
    made: Any = BUILDERS[panel.kind]()
    made.title(panel.title).description(panel.says).datasource(SOURCE).unit(panel.unit)
    made.span(panel.width).height(panel.height)
    for number, (expression, legend) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(expression)
        query.legend_format(legend)
        once = panel.kind in ("stat", "gauge")
        made.with_target(query.instant() if once else query.range())
    if not panel.below:
        made.min(0)
    if panel.kind == "gauge":
        made.max(1)
    if panel.kind == "stat":
        made.graph_mode(kinds.BigValueGraphMode.NONE).color_mode(kinds.BigValueColorMode.NONE)
        if panel.named:
            made.text_mode(kinds.BigValueTextMode.NAME)
    if panel.kind in ("timeseries", "statetimeline"):
        legend_below = common.VizLegendOptions().show_legend(True)
        legend_below.display_mode(kinds.LegendDisplayMode.LIST)
        made.legend(legend_below.placement(kinds.LegendPlacement.BOTTOM))
    if panel.kind == "timeseries":
        _lines(made, panel)
    return made


def _lines(made: timeseries.Panel, panel: pages.Panel) -> None:
    made.line_width(1).fill_opacity(40 if panel.stacked else 10)
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    made.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
    for name in panel.right:
        axis = DynamicConfigValue(id_val="custom.axisPlacement", value="right")
        made.override_by_name(name, [axis, DynamicConfigValue(id_val="unit", value="short")])


def render() -> dict[str, str]:
    """File → what it should hold."""
    return {
        f"{name}.json": json.dumps(page.build(), cls=JSONEncoder, indent=1, ensure_ascii=False)
        + "\n"
        for name, page in (("training", training()), ("operator", operator()))
    }


if __name__ == "__main__":
    for file, text in render().items():
        (FOLDER / file).write_text(text)
