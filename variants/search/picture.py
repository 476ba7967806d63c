"""The search as a picture: every candidate where it was predicted to be, and the ladder where it was measured."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from variants.errors import MissingPart
from variants.figures import cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from variants.search.choosing import Candidate
    from variants.search.run import SearchResult

SIZE, DPI = (9.0, 5.2), 100
COLOURS: Final = {"float32": "#9db8c4", "int8": "#e3b98a"}
PREDICTED, MEASURED, INK = "#a85d00", "#1f6f8b", "#222222"
PERCENT: Final = 100.0
MICRO: Final = 1e-6
ROOM: Final = 4.0
"""Points below full's accuracy that are shown at least."""


def draw(result: SearchResult, form: str) -> bytes:
    """Return the picture as the bytes of a ``png`` or ``svg`` file.

    Raises:
        MissingPart: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional: a search works without it
        from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: PLC0415
    except ImportError:
        raise MissingPart("a picture needs matplotlib; get it with: pip install 'tiergate[build]'") from None
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _draw_candidates(axes, result.candidates)
    lowest = _draw_ladder(axes, result)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(_ticks())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} us" if x < 1000 else f"{x / 1000:g} ms"))  # noqa: PLR2004 - a millisecond
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(lowest, PERCENT + 0.3)
    axes.set_xlabel("p50, one row, one thread (log scale)")
    axes.set_ylabel(f"{result.build.manifest.metric}, %")
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return buffer.getvalue()


def _ticks() -> Any:  # noqa: ANN401 - matplotlib is optional
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 - as above

    return LogLocator(subs=(1.0, 2.0, 5.0))


def _draw_candidates(axes: Any, candidates: Sequence[Candidate]) -> None:  # noqa: ANN401 - matplotlib is optional
    for precision, colour in COLOURS.items():
        own = [one for one in candidates if one.precision == precision]
        times = [one.p50_s / MICRO for one in own]
        values = [one.accuracy * PERCENT for one in own]
        label = f"candidate, {precision}: predicted time, validation rows, short fit"
        axes.scatter(times, values, s=18, color=colour, label=label, zorder=1)


def _draw_ladder(axes: Any, result: SearchResult) -> float:  # noqa: ANN401 - matplotlib is optional
    """Draw each tier as predicted and as measured, joined by a line; return the lowest accuracy to be shown."""
    manifest = result.build.manifest
    for number, rung in enumerate(result.ladder):
        variant, found = manifest.variant(rung.name), rung.found
        measured = cell(variant, 1).p50_s / MICRO, variant.accuracy.value * PERCENT
        predicted = found.p50_s / MICRO, found.accuracy * PERCENT
        axes.plot(*zip(predicted, measured, strict=True), color=INK, linewidth=0.7, linestyle=":", zorder=2)
        label = "chosen: as predicted" if number == 0 else None
        axes.scatter(*predicted, s=46, facecolor="none", edgecolor=PREDICTED, linewidth=1.4, label=label, zorder=3)
    lows = []
    for number, variant in enumerate(manifest.variants):
        x, accuracy = cell(variant, 1).p50_s / MICRO, variant.accuracy
        y, low, high = accuracy.value * PERCENT, accuracy.low * PERCENT, accuracy.high * PERCENT
        label = "built: measured time, test rows, 95 % interval" if number == 0 else None
        axes.errorbar(
            [x], [y], yerr=[[y - low], [high - y]], fmt="o", color=MEASURED, markersize=7, label=label, zorder=4
        )
        axes.annotate(
            variant.name, (x, y), xytext=(7, 6), textcoords="offset points", fontsize=9, color=MEASURED, zorder=5
        )
        lows.append(low)
    return min(*lows, manifest.variants[0].accuracy.value * PERCENT - ROOM) - 0.5
