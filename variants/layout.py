"""Where everything on the Pareto plot goes, in pixels; drawing is left to the two forms (SVG and PNG).

Latency runs to the right on a log scale, because tiers differ by factors; accuracy runs up on a linear one. A
bubble's AREA is proportional to the file's bytes (radius to the square root): eyes compare areas. A cascade stands at
its expected latency, with a mark of one size, since it has no file. Labels stand beside
their bubbles rather than in a legend: of the places around a bubble that meet no bubble, no label placed before
and no edge, a label takes the nearest, where crossing another variant's whisker counts as half a step further away (a
greedy point-feature labelling; Christensen, Marks, Shieber 1995). A label that had to move away gets a leader line.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, cos, floor, log10, pi, sin, sqrt
from typing import TYPE_CHECKING, Final

from variants.figures import MICRO, MILLI, cascade_names, cell, expected_s, front

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from variants.manifest import ModelManifest

LEFT, RIGHT, TOP, BOTTOM = 64, 24, 32, 52
CHARACTER_WIDTH: Final = 8.0
LINE_HEIGHT: Final = 16
GAP: Final = 5
CASCADE: Final = "cascade"
CASCADE_RADIUS: Final = 6.0
SMALLEST: Final = 5.0
ROOM: Final = 160.0
PERCENT: Final = 100.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Tell whether the two share any area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    @property
    def middle_y(self) -> float:
        """Half-way down."""
        return (self.top + self.bottom) / 2

    def is_within(self, other: Box) -> bool:
        """Tell whether all of this lies in ``other``."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True, slots=True)
class Bubble:
    """One variant or cascade: its centre, radius, the ends of its accuracy interval, and where its label stands.

    ``state`` is the variant's in routing, or ``CASCADE``.
    """

    name: str
    state: str
    x: float
    y: float
    radius: float
    low_y: float
    high_y: float
    label: Box
    has_leader: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """The whole picture: ``x_ticks`` and ``y_ticks`` are (pixel, text)."""

    width: int
    height: int
    metric: str
    bubbles: tuple[Bubble, ...]
    front: tuple[tuple[float, float], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class _Point:
    """What is shown of one variant or cascade, in seconds and ratios; ``radius`` is in pixels."""

    name: str
    state: str
    p50_s: float
    accuracy: float
    low: float
    high: float
    radius: float


@dataclass(frozen=True, slots=True)
class _Scale:
    """A linear map of [low, high] to [start, end] pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def lay_out(manifest: ModelManifest, width: int, height: int) -> Plot:
    """Return the plot of a manifest at a size in pixels."""
    points = _points(manifest, min(34.0, width / 18))
    p50s_s = [point.p50_s for point in points]
    margin = max(0.25, ROOM / width)  # decades beside the outermost bubbles, for their labels
    x = _Scale(log10(min(p50s_s)) - margin, log10(max(p50s_s)) + margin, LEFT, width - RIGHT)
    lows, highs = [point.low * PERCENT for point in points], [point.high * PERCENT for point in points]
    y = _Scale(min(lows) - 0.2, max(highs) + 0.2, height - BOTTOM, TOP)
    circles = [(x(log10(point.p50_s)), y(point.accuracy * PERCENT), point.radius) for point in points]
    whiskers = [(y(low), y(high)) for low, high in zip(lows, highs, strict=True)]
    labels = _place_labels([point.name for point in points], circles, whiskers, Box(LEFT, TOP, width, height - BOTTOM))
    bubbles = tuple(
        Bubble(point.name, point.state, *circle, *whisker, *label)
        for point, circle, whisker, label in zip(points, circles, whiskers, labels, strict=True)
    )
    edge = tuple((x(log10(cell(v, 1).p50_s)), y(v.accuracy.value * PERCENT)) for v in front(manifest))
    return Plot(width, height, manifest.metric, bubbles, edge, tuple(_time_ticks(x)), tuple(_percent_ticks(y)))


def _points(manifest: ModelManifest, largest: float) -> list[_Point]:
    """Return what is to be shown; ``largest`` is the radius of the largest file's bubble, in pixels."""
    biggest = max(v.size.file_bytes for v in manifest.variants)
    points = []
    for v in manifest.variants:
        radius = max(SMALLEST, largest * sqrt(v.size.file_bytes / biggest))
        whisker = v.accuracy.low, v.accuracy.high
        points.append(_Point(v.name, v.routing.state, cell(v, 1).p50_s, v.accuracy.value, *whisker, radius))
    for name, c in zip(cascade_names(manifest), manifest.cascades, strict=True):
        points.append(_Point(name, CASCADE, expected_s(manifest, c), c.accuracy, c.low, c.high, CASCADE_RADIUS))
    return points


def _place_labels(
    names: Sequence[str],
    circles: Sequence[tuple[float, float, float]],
    whiskers: Sequence[tuple[float, float]],
    area: Box,
) -> list[tuple[Box, bool]]:
    """Return each label's box and whether it needs a leader line."""
    solid = [Box(x - radius, y - radius, x + radius, y + radius) for x, y, radius in circles]
    lines = [Box(x - 2, high, x + 2, low) for (x, _, _), (low, high) in zip(circles, whiskers, strict=True)]
    places = []
    for name, circle in zip(names, circles, strict=True):
        choices = [(ring, box) for ring, box in _around(len(name) * CHARACTER_WIDTH, circle) if box.is_within(area)]
        clear = [(ring, box) for ring, box in choices if not any(box.meets(other) for other in solid)]
        others = [line for line in lines if not line.left < circle[0] < line.right]
        costs = [(2 * ring + sum(box.meets(line) for line in others), ring, box) for ring, box in clear or choices]
        _, ring, box = min(costs, key=lambda cost: cost[:2], default=(0, 0, area))
        solid.append(box)
        places.append((box, ring > 0))
    return places


def _around(width: float, circle: tuple[float, float, float]) -> Iterator[tuple[int, Box]]:
    """Yield places for a label around a circle with their ring, nearest first: right, left, above, below, between."""
    x, y, radius = circle
    angles = [0.0, pi, -pi / 2, pi / 2, -pi / 4, pi / 4, -3 * pi / 4, 3 * pi / 4]
    half = LINE_HEIGHT / 2
    for ring, angle in product(range(6), angles):
        reach = radius + GAP + ring * LINE_HEIGHT
        middle_x = x + cos(angle) * (reach + width / 2)
        middle_y = y + sin(angle) * (reach + half)
        yield ring, Box(middle_x - width / 2, middle_y - half, middle_x + width / 2, middle_y + half)


def _time_ticks(scale: _Scale) -> Iterator[tuple[float, str]]:
    for decade, digit in product(range(floor(scale.low), ceil(scale.high) + 1), (1, 2, 5)):
        place = decade + log10(digit)
        if scale.low <= place <= scale.high:
            time_s = digit * 10.0**decade
            text = f"{time_s / MILLI:g} ms" if time_s >= MILLI * 0.999 else f"{time_s / MICRO:.3g} us"
            yield scale(place), text


def _percent_ticks(scale: _Scale) -> Iterator[tuple[float, str]]:
    span = scale.high - scale.low
    step = next(step for step in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if span / step <= 8 or step == 50.0)  # noqa: PLR2004 - at most eight ticks, fifty the coarsest
    for count in range(ceil(scale.low / step), floor(scale.high / step) + 1):
        if count * step <= PERCENT:
            yield scale(count * step), f"{count * step:g} %"
