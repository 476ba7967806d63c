# ruff: noqa: INP001 - deploy is no package of ours: this is run from a clone
"""How our panels look; what they show stands in ``dashboards``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models

if TYPE_CHECKING:
    from collections.abc import Sequence

Panel = timeseries.Panel | stat.Panel
_Panel = TypeVar("_Panel", timeseries.Panel, stat.Panel)

_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class Query:
    """One line, or one family of lines, of a panel; ``legend`` holds label names in double braces."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Row:
    """A title and the panels below it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Page:
    """One dashboard; ``name`` is its uid and, with ``.json``, its file."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]


def graph(title: str, unit: str, *queries: Query, about: str = "", limit: float | None = None) -> timeseries.Panel:
    """Return lines over time, a third of the width; ``limit`` draws a line where an alert would fire."""
    panel = timeseries.Panel().title(title).description(about).unit(unit).datasource(_SOURCE).span(8).height(8)
    panel.fill_opacity(8).show_points(looks.VisibilityMode.NEVER).min(0)
    legend = common.VizLegendOptions().show_legend(show_legend=True).placement(looks.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(looks.LegendDisplayMode.LIST))
    panel.tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    if limit is not None:
        panel.thresholds(_from_limit(limit))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.LINE))
    return _ask(panel, queries)


def stacked(title: str, unit: str, *queries: Query, about: str = "") -> timeseries.Panel:
    """Return lines over time, each on top of the one before."""
    panel = graph(title, unit, *queries, about=about)
    return panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL)).fill_opacity(40)


def tile(title: str, unit: str, query: Query, about: str = "", limit: float | None = None) -> stat.Panel:
    """Return one number, a sixth of the width, red from ``limit`` on."""
    panel = stat.Panel().title(title).description(about).unit(unit).datasource(_SOURCE).span(4).height(4)
    panel.graph_mode(looks.BigValueGraphMode.AREA).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if limit is not None:
        panel.thresholds(_from_limit(limit))
    return _ask(panel, [query])


def build(page: Page) -> models.Dashboard:
    """Return the dashboard of a page."""
    made = dashboard.Dashboard(page.title).uid(page.name).description(page.description).tags(["tiergate"])
    made.refresh("30s").time("now-3h", "now").timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    made.link(
        dashboard.DashboardLink("tiergate")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["tiergate"])
        .as_dropdown(as_dropdown=True)
        .include_vars(include_vars=True)
        .keep_time(keep_time=True)
    )
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    made.with_variable(_choice("job", "label_values(tiergate_policy_info, job)"))
    made.with_variable(_choice("model", 'label_values(tiergate_variant_info{job=~"$job"}, model)'))
    for row in page.rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(panel)
    return _numbered(made.build())


def _ask(panel: _Panel, queries: Sequence[Query]) -> _Panel:
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend or "__auto")
        panel.with_target(target.ref_id(chr(ord("A") + number)).datasource(_SOURCE).range())
    return panel


def _from_limit(limit: float) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=None, color="green"), models.Threshold(value=limit, color="red")]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _choice(name: str, query: str) -> dashboard.QueryVariable:
    """Return a variable that starts with everything chosen; an empty label is chosen by "all" too."""
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    variable = dashboard.QueryVariable(name).label(name).query(query).datasource(_SOURCE).current(everything)
    variable.multi(multi=True).include_all(include_all=True).all_value(".*").sort(models.VariableSort.ALPHABETICAL_ASC)
    return variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)


def _numbered(made: models.Dashboard) -> models.Dashboard:
    """Give every panel an id of its own; Grafana needs them to link to a panel."""
    for number, panel in enumerate(made.panels or [], start=1):
        panel.id_val = number
    return made
