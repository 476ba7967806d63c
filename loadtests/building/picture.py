"""The variants of all models in one picture: what size and speed cost in accuracy, each against its own full model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from loadtests.building.bars import timed_cells
from loadtests.building.timing import headline, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

_SIZE: Final = (10.0, 4.4)
_DPI: Final = 90
_LOWEST: Final = -9.0
_MARKERS: Final = {"full": "o", "pruned": "s", "distilled": "^", "quantized": "D"}
_TICKS: Final = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw(parts: Mapping[str, Any], path: Path) -> None:
    """Write the picture as a PNG."""
    mpl.use("agg")
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    timed = {model: cells for model in parts.get("build", {}) if (cells := timed_cells(parts, model)) is not None}
    for place, (model, cells) in enumerate(timed.items()):
        facts, cell = parts["build"][model]["variants"], headline(cells)
        for name in cell["blocks_s"]:
            points = max(_LOWEST, 100 * (facts[name]["accuracy"] - facts["full"]["accuracy"]))
            style = {"marker": _marker(facts[name]["tier"]), "color": f"C{place}", "s": 42, "alpha": 0.8}
            is_filled = name == "full" or facts[name]["is_int8"]
            style |= {} if is_filled else {"facecolors": "none"}
            left.scatter(facts["full"]["file_bytes"] / facts[name]["file_bytes"], points, **style)
            right.scatter(ratio(cell, "full", name).value, points, **style)
    _finish(left, "times smaller than full (file)")
    _finish(right, "times faster than full (p50, one row, one thread)")
    left.set_ylabel("points of accuracy against full (at the edge: lower)")
    _legend(figure, right, list(timed))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _marker(tier: str) -> str:
    return _MARKERS[tier.removesuffix("-quantized")]


def _finish(axes: Axes, title: str) -> None:
    axes.set(xscale="log", xlabel=title)
    axes.set_xticks(_TICKS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=_LOWEST - 0.4)
    axes.axhline(-1.0, color="grey", linestyle=":", linewidth=1.0)
    axes.grid(alpha=0.3)


def _legend(figure: Figure, axes: Axes, models: list[str]) -> None:
    shown = [axes.scatter([], [], color=f"C{place}", label=model) for place, model in enumerate(models)]
    for tier, marker in _MARKERS.items():
        shown.append(axes.scatter([], [], color="black", marker=marker, facecolors="none", label=tier))
    shown.append(axes.scatter([], [], color="black", marker="s", label="filled: int8"))
    figure.legend(handles=shown, fontsize=8, loc="outside right center")
