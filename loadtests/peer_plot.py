"""The results of `make bench-peers` as a picture: a panel for each model and protocol, a bar for each server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from loadtests.peer_report import REFERENCE, lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from loadtests.peer_report import Line

PROTOCOLS: Final = ("HTTP JSON", "HTTP binary", "gRPC")
_OWN, _OTHER = "#0072b2", "#9aa5b1"
_SIZE_IN: Final = (13.0, 7.2)
_TITLES: Final = {"mlp": "64 floats", "image": "1x3x224x224 floats (602 kB)"}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write the picture: for each model and protocol, at the most connections that all were asked over."""
    found = lines(document)
    models = [name for name in _TITLES if any(line.model == name for line in found)]
    figure = Figure(figsize=(_SIZE_IN[0], _SIZE_IN[1] * len(models) / 2), layout="constrained")
    panels = figure.subplots(len(models), len(PROTOCOLS), squeeze=False)
    for row, model in zip(panels, models, strict=True):
        for axes, protocol in zip(row, PROTOCOLS, strict=True):
            _panel(axes, model, protocol, [line for line in found if (line.model, line.protocol) == (model, protocol)])
    machine = document["machine"]
    figure.suptitle(
        f"Throughput of one server process; p50 and p99 beside the bars. {machine['cpu']}, {machine['cores']} cores, "
        f"commit {document['commit']}, {document['date']}",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "bench-peers", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axes: Axes, model: str, protocol: str, found: Sequence[Line]) -> None:
    counts = sorted({line.connections for line in found})
    count = counts[-1] if counts else 0
    shown = sorted((line for line in found if line.connections == count), key=lambda line: line.rate_hz)
    axes.set_title(f"{_TITLES[model]}, {protocol}, {count} connections", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if not shown:
        axes.set_axis_off()
        return
    names = [line.server for line in shown]
    colours = [_OWN if name.startswith(REFERENCE) else _OTHER for name in names]
    axes.barh(names, [line.rate_hz for line in shown], color=colours)
    widest = shown[-1].rate_hz
    for place, line in enumerate(shown):
        text = f" {line.rate_hz:,.0f}/s, {line.p50_s * 1e3:.1f} / {line.p99_s * 1e3:.1f} ms"
        axes.text(line.rate_hz, place, text, va="center", fontsize=7.5)
    axes.set_xlim(0.0, 1.65 * widest)
    axes.set_xlabel("requests/s", fontsize=8)
    axes.tick_params(labelsize=8)
