"""The results as pictures: policies against load, and predicted against actual latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from loadtests.serving.contenders import BEST, COST, OURS_NAME, TUNED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

_OWN: Final = "#0072b2"
_COLOURS: Final = {
    OURS_NAME: _OWN,
    TUNED: "#56b4e9",
    "slackfit": "#d55e00",
    "infaas": "#e69f00",
    "proteus": "#cc79a7",
    "static-threshold": "#009e73",
    BEST: "#9aa5b1",
    "always-full": "#444444",
}
_HIDDEN: Final = ("always-full-plain", "random", "always-smallest", COST)
_POINTS: Final = (("p50_s", "o", "p50"), ("p95_s", "^", "p95"), ("p99_s", "v", "p99"))


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, and what is to be seen in it."""

    path: Path
    words: str


def draw_all(parts: Mapping[str, Any], folder: Path) -> list[Picture]:
    """Draw a picture of each part that has one."""
    found = []
    if "simulated" in parts:
        words = "Effective accuracy and violations of every policy by load, with the oracle's bound"
        found.append(Picture(folder / "serving-policies.svg", words))
        _save(draw_policies(parts["simulated"]), found[-1].path)
    if "reliability" in parts:
        words = "Predicted against actual latency by variant"
        found.append(Picture(folder / "serving-reliability.svg", words))
        _save(draw_reliability(parts["reliability"]), found[-1].path)
    return found


def draw_policies(part: Mapping[str, Any]) -> Figure:
    """Return, for each trace, effective accuracy and violations by load."""
    traces = list(dict.fromkeys(cell["trace"] for cell in part["cells"]))
    figure = Figure(figsize=(11.0, 3.8 * len(traces)), layout="constrained")
    panels = figure.subplots(len(traces), 2, squeeze=False)
    for row, trace in zip(panels, traces, strict=True):
        cells = [cell for cell in part["cells"] if cell["trace"] == trace]
        loads = [cell["load"] for cell in cells]
        for name in (name for name in cells[0]["policies"] if name not in _HIDDEN):
            known = [
                (load, cell["policies"][name])
                for load, cell in zip(loads, cells, strict=True)
                if name in cell["policies"]
            ]
            at = [load for load, _ in known]
            style = {
                "color": _COLOURS.get(name, "#b8860b"),
                "linewidth": 2.4 if name in (OURS_NAME, TUNED) else 1.2,
                "marker": "o",
                "markersize": 3.0,
                "label": name,
            }
            row[0].plot(at, [100 * figures["effective_accuracy"] for _, figures in known], **style)
            row[1].plot(at, [100 * (1 - figures["attainment"]) for _, figures in known], **style)
        bound = [100 * cell["oracle"]["expected_accuracy"] for cell in cells]
        row[0].plot(loads, bound, color="black", linestyle=":", label="oracle's bound")
        late = [100 * (1 - min(1.0, cell["oracle"]["attainment"])) for cell in cells]
        row[1].plot(loads, late, color="black", linestyle=":", label="oracle's bound")
        _title(row[0], f"{trace}: effective accuracy, %", loads)
        row[0].set_ylim(*_zoom(cells))
        _title(row[1], f"{trace}: late or refused, %", loads)
        row[1].set_yscale("symlog", linthresh=0.1)
        row[1].set_ylim(0, 100)
        row[1].set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    panels[0][0].legend(fontsize=7, loc="lower left")
    return figure


def draw_reliability(part: Mapping[str, Any]) -> Figure:
    """Return, for each variant, quantiles of actual time by predicted time; on the diagonal they are equal."""
    shown = {name: found for name, found in part["variants"].items() if found["tenths"]}
    figure = Figure(figsize=(3.6 * max(1, len(shown)), 3.8), layout="constrained")
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axes, (name, found) in zip(panels, shown.items(), strict=False):
        predicted = [1e3 * point["predicted_s"] for point in found["tenths"]]
        for key, marker, label in _POINTS:
            axes.plot(predicted, [1e3 * point[key] for point in found["tenths"]], marker, markersize=4, label=label)
        values = [*predicted, *(1e3 * point[key] for point in found["tenths"] for key, _, _ in _POINTS)]
        ends = (0.9 * min(values), 1.1 * max(values))
        axes.plot(ends, ends, color="#9aa5b1", linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{name}, {found['answers']:,} answers", fontsize=9)
        axes.set_xlabel("predicted, ms", fontsize=8)
        axes.tick_params(labelsize=7, which="both")
    panels[0].set_ylabel("actual, ms", fontsize=8)
    if shown:
        panels[0].legend(fontsize=7)
    return figure


def _zoom(cells: list[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the range that shows the best policies apart; the worst are below it."""
    ours = [cell["policies"][OURS_NAME]["effective_accuracy"] for cell in cells]
    bounds = [cell["oracle"]["expected_accuracy"] for cell in cells]
    best = [cell["policies"][BEST]["effective_accuracy"] for cell in cells]
    low = min([*ours, *best])
    high = max([*bounds, *ours])
    return max(0.0, 100 * (low - 2 * (high - low) - 0.005)), min(101.0, 100 * (high + 0.005))


def _title(axes: Axes, title: str, loads: list[float]) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xscale("log")
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.minorticks_off()
    axes.set_xlabel("load", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "bench-serving", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
