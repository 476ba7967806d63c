"""The Pareto plot, latency against accuracy with bubbles for size, as SVG for the report and as PNG for anywhere."""

from __future__ import annotations

import io
from html import escape
from typing import TYPE_CHECKING, Any, Final

from variants.errors import MissingPart
from variants.layout import BOTTOM, CASCADE, LEFT, RIGHT, TOP, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from variants.layout import Bubble, Plot
    from variants.manifest import ModelManifest

PLOT_FILE: Final = "pareto.png"
WIDTH, HEIGHT, DPI = 900, 520, 100
POINTS_PER_INCH: Final = 72
COLOURS: Final = {"routable": "#1f6f8b", "dominated": "#8a8a8a", "rejected": "#b3362b", CASCADE: "#a85d00"}
INK, GRID = "#222222", "#d9d9d9"
X_TITLE: Final = "p50 compute time, one row, one thread (log scale)"


def draw_svg(manifest: ModelManifest, width: int, height: int) -> str:
    """Return the plot as an ``<svg>`` element; its colours are the page's CSS classes."""
    plot = lay_out(manifest, width, height)
    parts = [*_svg_axes(plot), *_svg_front(plot)]
    parts += [line for bubble in plot.bubbles for line in _svg_bubble(bubble)]
    title = f"Latency against accuracy of the variants of {escape(manifest.model)}"
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}">'
        + "".join(parts)
        + "</svg>"
    )


def draw_png(manifest: ModelManifest) -> bytes:
    """Return the plot as the bytes of a PNG file.

    Raises:
        MissingPart: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional: the report works without it
    except ImportError:
        raise MissingPart("a PNG needs matplotlib; get it with: pip install 'tiergate[build]'") from None
    plot = lay_out(manifest, WIDTH, HEIGHT)
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # one unit is one pixel, so that the layout's places hold
    axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.axis("off")
    _png_axes(axes, plot)
    if plot.front:
        axes.plot(*zip(*plot.front, strict=True), color=COLOURS["routable"], linestyle="--", linewidth=1.2, zorder=1)
    for bubble in plot.bubbles:
        _png_bubble(axes, bubble)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _png_axes(axes: Any, plot: Plot) -> None:  # noqa: ANN401 - matplotlib is optional
    for x, text in plot.x_ticks:
        axes.plot([x, x], [TOP, HEIGHT - BOTTOM], color=GRID, linewidth=0.8, zorder=0)
        axes.text(x, HEIGHT - BOTTOM + 18, text, ha="center", fontsize=9, color=INK)
    for y, text in plot.y_ticks:
        axes.plot([LEFT, WIDTH - RIGHT], [y, y], color=GRID, linewidth=0.8, zorder=0)
        axes.text(LEFT - 8, y, text, ha="right", va="center", fontsize=9, color=INK)
    axes.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, X_TITLE, ha="center", fontsize=9, color=INK)
    axes.text(LEFT - 8, TOP - 12, plot.metric, fontsize=9, color=INK)


def _png_bubble(axes: Any, bubble: Bubble) -> None:  # noqa: ANN401 - matplotlib is optional
    colour = COLOURS[bubble.state]
    fill = colour if bubble.state in {"routable", CASCADE} else "none"
    marker = "D" if bubble.state == CASCADE else "o"
    area = (2 * bubble.radius * POINTS_PER_INCH / DPI) ** 2  # a scatter's size is an area in square points
    axes.plot([bubble.x, bubble.x], [bubble.low_y, bubble.high_y], color=colour, linewidth=1, zorder=2)
    axes.scatter([bubble.x], [bubble.y], s=area, marker=marker, facecolor=fill, edgecolor=colour, alpha=0.75, zorder=3)
    middle_x, middle_y = (bubble.label.left + bubble.label.right) / 2, bubble.label.middle_y
    if bubble.has_leader:
        axes.plot([bubble.x, middle_x], [bubble.y, middle_y], color=colour, linewidth=0.7, zorder=2)
    style = {"fontsize": 9.5, "color": colour, "weight": "bold", "ha": "center", "va": "center", "zorder": 4}
    halo = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    axes.text(middle_x, middle_y, bubble.name, bbox=halo, **style)


def _svg_axes(plot: Plot) -> Iterator[str]:
    floor, right = plot.height - BOTTOM, plot.width - RIGHT
    last = -float("inf")
    for x, text in plot.x_ticks:
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{floor}"/>'
        if x - last > 48:  # noqa: PLR2004 - the width of the longest tick text
            yield f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{text}</text>'
            last = x
    for y, text in plot.y_ticks:
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    middle = (LEFT + right) / 2
    yield f'<text class="tick" x="{middle}" y="{plot.height - 8}" text-anchor="middle">{X_TITLE}</text>'
    yield f'<text class="tick" x="{LEFT - 8}" y="{TOP - 12}">{escape(plot.metric)}</text>'


def _svg_front(plot: Plot) -> Iterator[str]:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in plot.front)
    yield f'<polyline class="front" points="{points}"/>'


def _svg_bubble(bubble: Bubble) -> Iterator[str]:
    x, y = f"{bubble.x:.1f}", f"{bubble.y:.1f}"
    yield f'<g class="{bubble.state}"><line x1="{x}" y1="{bubble.low_y:.1f}" x2="{x}" y2="{bubble.high_y:.1f}"/>'
    yield _svg_diamond(bubble) if bubble.state == CASCADE else f'<circle cx="{x}" cy="{y}" r="{bubble.radius:.1f}"/>'
    middle, bottom = (bubble.label.left + bubble.label.right) / 2, bubble.label.bottom
    if bubble.has_leader:
        yield f'<line class="leader" x1="{x}" y1="{y}" x2="{middle:.1f}" y2="{bubble.label.middle_y:.1f}"/>'
    yield f'<text x="{middle:.1f}" y="{bottom - 4:.1f}" text-anchor="middle">{escape(bubble.name)}</text></g>'


def _svg_diamond(bubble: Bubble) -> str:
    x, y, reach = bubble.x, bubble.y, bubble.radius
    corners = ((x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y))
    return f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"/>'
