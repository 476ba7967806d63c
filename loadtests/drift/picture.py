"""The drift bench in one picture: how soon detectors speak, and estimates without labels beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

_SIZE: Final = (9.0, 3.6)
_DPI: Final = 80
_LONGEST: Final = 600
_BAR: Final = 150


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write the picture as a PNG; the document still has its ``delays`` and ``cases``."""
    mpl.use("agg")
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    _delays(left, document["detection"]["detectors"])
    _estimates(right, document["estimates"]["cases"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _delays(axes: Axes, detectors: Mapping[str, Any]) -> None:
    for title, found in detectors.items():
        delays = np.sort(np.concatenate([np.asarray(values) for values in found["delays"].values()]))
        is_ours = title == "tiergate"
        shares = np.arange(1, len(delays) + 1) / len(delays)
        axes.step(delays, shares, label=title, linewidth=2.4 if is_ours else 1.0, where="post")
    axes.axvline(_BAR, color="grey", linestyle=":", linewidth=1.0)
    axes.set(xlim=(0, _LONGEST), ylim=(0, 1), xlabel="shadow samples after the fault", ylabel="share of faults found")
    axes.set_title("a drop of five points", fontsize="medium")
    axes.legend(fontsize=6, loc="lower right")


def _estimates(axes: Axes, cases: list[Mapping[str, Any]]) -> None:
    truth = [case["truth"] for case in cases]
    for method, colour in (("confidence", "tab:orange"), ("shadow", "tab:blue")):
        axes.scatter(truth, [case[method] for case in cases], s=7, alpha=0.6, label=f"by {method}", color=colour)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1.0)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="true accuracy", ylabel="estimate without labels")
    axes.set_title("every variant under every shift and damage", fontsize="medium")
    axes.legend(fontsize=7, loc="lower right")
