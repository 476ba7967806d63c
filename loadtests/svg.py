"""Plots as SVG text: axes, curves, stacked bands and dots, with colours left to the page's style sheet.

Series have the classes ``s0`` to ``s7``; a page gives them colours for day and for night.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Points = Sequence[tuple[float, float]]
    Write = Callable[[float], str]

SERIES: Final = 8
LEFT, RIGHT, TOP, BOTTOM = 58, 26, 12, 44
_TICK_ROOM_PX: Final = 74
_LINE_ROOM_PX: Final = 44
_FEWEST_TICKS: Final = 3


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its range, whether it is logarithmic, how its values are written, and what it shows."""

    low: float
    high: float
    title: str
    write: Write
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one; values outside are moved to the end."""
        low, high, here = (self._scaled(item) for item in (self.low, self.high, value))
        return min(1.0, max(0.0, (here - low) / ((high - low) or 1.0)))

    def ticks(self, most: int) -> list[float]:
        """Return at most about ``most`` round values within the range."""
        return _log_ticks(self.low, self.high, most) if self.is_log else _linear_ticks(self.low, self.high, most)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.is_log else value


@dataclass(slots=True)
class Plot:
    """A plot of a size in pixels; add marks, then ``render``."""

    width: int
    height: int
    x: Axis
    y: Axis
    label: str
    _marks: list[str] = field(default_factory=list)

    def line(self, points: Points, series: int, kind: str = "") -> None:
        """Add a curve through points in the axes' units."""
        if points:
            path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
            self._marks.append(f'<polyline class="s{series % SERIES} {kind}" points="{path}"/>')

    def band(self, upper: Points, lower: Points, series: int) -> None:
        """Fill the area between two curves."""
        corners = [*upper, *reversed(lower)]
        if corners:
            path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in corners)
            self._marks.append(f'<polygon class="s{series % SERIES}" points="{path}"/>')

    def dots(self, points: Points, series: int, kind: str = "") -> None:
        """Add a dot at each point."""
        self._marks += [
            f'<circle class="s{series % SERIES} {kind}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="4"/>'
            for x, y in points
        ]

    def segment(self, start: tuple[float, float], end: tuple[float, float], kind: str, series: int = 0) -> None:
        """Add a straight line."""
        ends = f'x1="{self._x(start[0]):.1f}" y1="{self._y(start[1]):.1f}"'
        ends += f' x2="{self._x(end[0]):.1f}" y2="{self._y(end[1]):.1f}"'
        self._marks.append(f'<line class="s{series % SERIES} {kind}" {ends}/>')

    def render(self) -> str:
        """Return the plot."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        marks = "".join(self._marks)
        return f'<svg {size} role="img" aria-label="{escape(self.label)}">{self._axes()}<g>{marks}</g></svg>'

    def _axes(self) -> str:
        parts = []
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        for value in self.x.ticks(max(2, (right - LEFT) // _TICK_ROOM_PX)):
            x = self._x(value)
            parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>')
            parts.append(_text(x, bottom + 16, self.x.write(value), "middle"))
        for value in self.y.ticks(max(2, (bottom - TOP) // _LINE_ROOM_PX)):
            y = self._y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
            parts.append(_text(LEFT - 6, y + 4, self.y.write(value), "end"))
        parts.append(_text((LEFT + right) / 2, self.height - 6, self.x.title, "middle"))
        return "".join(parts)

    def _x(self, value: float) -> float:
        return LEFT + self.x.place(value) * (self.width - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return self.height - BOTTOM - self.y.place(value) * (self.height - TOP - BOTTOM)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    span = (high - low) or 1.0
    rough = span / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [tick * step for tick in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**decade for decade in decades for digit in digits]
        found = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(found) <= most:
            return found if len(found) >= _FEWEST_TICKS else _linear_ticks(low, high, most)
    return found[:: -(-len(found) // most)]
