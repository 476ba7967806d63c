"""The plots of a load test's report; each takes the document and a size in pixels and returns SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadtests.svg import Axis, Plot
from loadtests.wording import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadtests.document import Document

_SMALLEST_S: Final = 1e-5
_HEADROOM: Final = 1.08
_ROW: Final = 0.5
_MARGIN: Final = 0.01
_ENOUGH: Final = 100
"""Answers from which on a variant's interval may widen the axis; a wider one is cut at its end."""


def latency(document: Document, width: int, height: int) -> str:
    """Draw the distribution of latency of each kind of request, and its budget."""
    curves = document.summary.latency_curves
    times = [time_s for found, _ in curves.values() for time_s in found]
    budgets = [group.budget_s for group in document.summary.classes if group.budget_s]
    x = _log_axis([*times, *budgets], "latency")
    plot = Plot(width, height, x, _share_axis(), "distribution of latency by kind of request")
    for place, group in enumerate(document.summary.classes):
        found_s, shares = curves[group.name]
        plot.line(list(zip(found_s, shares, strict=True)), place)
        if group.budget_s:
            plot.segment((group.budget_s, 0.0), (group.budget_s, 1.0), "dashed", place)
    return plot.render()


def timeline(document: Document, width: int, height: int) -> str:
    """Draw offered, on time, refused and failed requests per second."""
    moments = document.summary.timeline
    bin_s = document.summary.duration_s / max(1, len(moments))
    top = max((moment.offered for moment in moments), default=1) / bin_s
    plot = Plot(
        width, height, _time_axis(document), Axis(0.0, top * _HEADROOM or 1.0, "", _number), "requests over time"
    )
    lines = [
        [moment.offered for moment in moments],
        [moment.on_time for moment in moments],
        [moment.refused for moment in moments],
        [moment.failed for moment in moments],
    ]
    at_s = [moment.at_s + bin_s / 2 for moment in moments]
    for place, values in enumerate(lines):
        plot.line([(when_s, value / bin_s) for when_s, value in zip(at_s, values, strict=True)], place)
    return plot.render()


def shares(document: Document, width: int, height: int) -> str:
    """Draw which variants answered, as shares of the answers."""
    moments = [moment for moment in document.summary.timeline if moment.variants]
    plot = Plot(width, height, _time_axis(document), _share_axis(), "variants over time")
    floor = [0.0] * len(moments)
    at_s = [moment.at_s for moment in moments]
    for place, group in enumerate(document.summary.variants):
        ceiling = [
            low + moment.variants.get(group.name, 0) / sum(moment.variants.values())
            for low, moment in zip(floor, moments, strict=True)
        ]
        plot.band(list(zip(at_s, ceiling, strict=True)), list(zip(at_s, floor, strict=True)), place)
        floor = ceiling
    return plot.render()


def accuracy(document: Document, width: int, height: int) -> str:
    """Draw each variant's share of right answers with its interval, beside what the manifest promises."""
    groups = [group for group in document.summary.variants if group.accuracy_of_answers is not None]
    shown = [group for group in groups if group.answered >= _ENOUGH] or groups
    lows = [group.accuracy_of_answers.low or 0.0 for group in shown if group.accuracy_of_answers is not None]
    promised = [group.mean_expected_accuracy for group in groups if group.mean_expected_accuracy is not None]
    x = Axis(max(0.0, min([*lows, *promised], default=0.0) - _MARGIN), 1.0, "accuracy", _percent)
    plot = Plot(width, height, x, Axis(0.0, max(1, len(groups)), "", _nothing), "accuracy of answers by variant")
    for place, group in enumerate(document.summary.variants):
        found = group.accuracy_of_answers
        if found is None:
            continue
        row = len(groups) - 1 - groups.index(group) + _ROW
        plot.segment((found.low or 0.0, row), (found.high or 1.0, row), "", place)
        plot.dots([(found.value, row)], place)
        if group.mean_expected_accuracy is not None:
            plot.dots([(group.mean_expected_accuracy, row)], place, "hollow")
    return plot.render()


def reliability(document: Document, width: int, height: int) -> str:
    """Draw real against predicted times; on the diagonal they are equal."""
    found = document.summary.reliability
    if found is None:
        return ""
    everything = [*found.predicted_s, *found.actual_p50_s, *found.actual_p95_s]
    x, y = _log_axis(everything, "predicted"), _log_axis(everything, "")
    plot = Plot(width, height, x, y, "predicted against real time")
    plot.segment((x.low, x.low), (x.high, x.high), "even")
    for place, actual in enumerate((found.actual_p50_s, found.actual_p95_s)):
        plot.dots(list(zip(found.predicted_s, actual, strict=True)), place)
    return plot.render()


def lanes(document: Document, width: int, height: int) -> str:
    """Draw how busy the lanes were."""
    found = document.summary.lanes
    if found is None:
        return ""
    end_s = max([document.summary.duration_s, *found.at_s])
    x = Axis(min(0.0, *found.at_s), end_s, "time since the first request, warm-up included", _seconds)
    plot = Plot(width, height, x, _share_axis(), "lane use over time")
    plot.line(list(zip(found.at_s, found.busy, strict=True)), 0)
    plot.dots(list(zip(found.at_s, found.busy, strict=True)), 0)
    return plot.render()


def _log_axis(values: Iterable[float], title: str) -> Axis:
    positive = [value for value in values if value > _SMALLEST_S]
    low, high = min(positive, default=1e-3), max(positive, default=1.0)
    return Axis(low / 1.15, high * 1.15, title, duration, is_log=True)


def _share_axis() -> Axis:
    return Axis(0.0, 1.0, "", _percent)


def _time_axis(document: Document) -> Axis:
    return Axis(0.0, document.summary.duration_s, "time", _seconds)


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _number(value: float) -> str:
    return f"{value:,.4g}"


def _seconds(value: float) -> str:
    return f"{value:g} s"


def _nothing(_: float) -> str:
    return ""
