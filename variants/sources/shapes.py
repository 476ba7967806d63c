"""Pictures of plain shapes with a box around each: as many labelled pictures as wanted, without a download.

Each picture shows one to three shapes of eight classes, turned, stretched, from 12 to 30 pixels across, of random grey
on random grey, over and under each other, with strokes below, then blurred, lit from a side and covered with noise.
Every shape lies wholly in the picture and at least four fifths of it can be seen; its box goes around all of it,
hidden parts too, so that a detector has to know shapes and not edges alone.

A picture depends on the seed and its row number and on nothing else: row 17 of a seed is the same picture whether 20 or
20,000 are painted. The bytes also depend on Pillow, which is why a build hashes the data it got.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from variants.recipe import Floats

    Reals = NDArray[np.float64]
    Pictures = NDArray[np.uint8]

SIDE: Final = 64
CLASSES: Final = ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "ell")
"""The position of a class is its number."""
MOST: Final = 3
"""Shapes in one picture."""

EXTENT: Final = (12.0, 30.0)
"""Pixels across, before a shape is stretched."""
STRETCH: Final = 0.2
CONTRAST: Final = (40.0, 140.0)
LEAST_SEEN: Final = 0.8
TRIES: Final = 12
STROKES: Final = 2
BLUR: Final = (0.2, 0.9)
GRADIENT: Final = 30.0
NOISE: Final = (2.0, 12.0)
FINER: Final = 2
"""Shapes are drawn this many times larger and scaled down, so that their edges are smooth."""
ROUND: Final = 24
"""Corners of what is round."""


def draw_shapes(rows: int, seed: int) -> tuple[Pictures, Floats]:
    """Return ``rows`` pictures (rows, 64, 64) uint8 and labels (rows, 3, 5): class, centre x, y, width, height; pixels.

    Where a picture has fewer than three shapes, all of the rest is -1 (``variants.boxes``).
    """
    pictures = np.empty((rows, SIDE, SIDE), dtype=np.uint8)
    labels = np.full((rows, MOST, 5), -1.0, dtype=np.float32)
    for row in range(rows):
        pictures[row], found = _draw_one(np.random.default_rng((seed, row)))
        labels[row, : len(found)] = found
    return pictures, labels


def _draw_one(random: np.random.Generator) -> tuple[Pictures, list[tuple[float, ...]]]:
    paper = float(random.uniform(20.0, 235.0))
    canvas = np.full((SIDE, SIDE), paper, dtype=np.float32)
    _draw_strokes(canvas, random)
    found: list[tuple[float, ...]] = []
    seen: list[tuple[Floats, float]] = []  # what can be seen of each shape so far, and how much of it there is
    for _ in range(int(random.integers(1, MOST + 1))):
        placed = _place(random, seen)
        if placed is None:
            continue
        box, mask = placed
        seen = [(other * (1.0 - mask), area) for other, area in seen]
        seen.append((mask, float(mask.sum())))
        canvas += mask * (_grey(random, paper) - canvas)
        found.append(box)
    return _weather(canvas, random), found


def _place(random: np.random.Generator, seen: list[tuple[Floats, float]]) -> tuple[tuple[float, ...], Floats] | None:
    """Return a shape's label and its mask (64, 64), 0..1, that leaves enough of ``seen``; ``None`` if none fits."""
    for _ in range(TRIES):
        name = int(random.integers(len(CLASSES)))
        outline, hole = _outline(CLASSES[name])
        turn, scale = random.uniform(0.0, 2.0 * math.pi), random.uniform(*EXTENT) / 2.0
        stretch = math.exp(random.uniform(-STRETCH, STRETCH))
        turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        matrix = turned @ np.diag([scale * stretch, scale / stretch])
        corners = outline @ matrix.T  # (n, 2), about the origin
        low, high = corners.min(0), corners.max(0)
        shift = random.uniform(1.0 - low, SIDE - 1.0 - high)
        mask = _fill(corners + shift, hole @ matrix.T + shift)
        if all(float((other * (1.0 - mask)).sum()) >= LEAST_SEEN * area for other, area in seen):
            middle, size = (low + high) / 2.0 + shift, high - low
            return (float(name), *map(float, middle), *map(float, size)), mask
    return None


@cache
def _outline(name: str) -> tuple[Reals, Reals]:
    """Return the corners (n, 2) of a shape that fills a circle of radius 1, and those of the hole in it, if any."""
    hole = np.zeros((0, 2))
    if name == "ring":
        return _polygon(ROUND), 0.55 * _polygon(ROUND)
    if name == "star":
        points = _polygon(10)
        points[1::2] *= 0.42
        return points, hole
    if name == "cross":
        arm, end = 0.3, 0.95
        quarter = np.array([[end, -arm], [end, arm], [arm, arm]])
        turns = [quarter @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        return np.concatenate(turns), hole
    if name == "crescent":
        outer = _polygon(ROUND)[2:-1]
        return np.concatenate([outer, (outer * [0.62, 0.86] + [0.36, 0.0])[::-1]]), hole
    if name == "ell":
        return np.array([[-0.7, -0.7], [0.7, -0.7], [0.7, -0.2], [-0.2, -0.2], [-0.2, 0.7], [-0.7, 0.7]]), hole
    return _polygon({"disc": ROUND, "square": 4, "triangle": 3}[name]), hole


def _polygon(corners: int) -> Reals:
    angles = 2.0 * math.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _fill(corners: Reals, hole: Reals) -> Floats:
    """Return the mask (64, 64), 0..1, of a polygon with a hole, both (n, 2) in pixels."""
    large = Image.new("L", (SIDE * FINER, SIDE * FINER), 0)
    pen = ImageDraw.Draw(large)
    pen.polygon((corners * FINER - 0.5).ravel().tolist(), fill=255)
    if len(hole):
        pen.polygon((hole * FINER - 0.5).ravel().tolist(), fill=0)
    return np.asarray(large.reduce(FINER), dtype=np.float32) / np.float32(255.0)


def _grey(random: np.random.Generator, paper: float) -> float:
    """Return a grey value that stands out from the paper."""
    contrast = float(random.uniform(*CONTRAST))
    darker, lighter = paper - contrast, paper + contrast
    if darker < 0.0 or (lighter <= 255.0 and random.random() < 0.5):  # noqa: PLR2004 - even chances
        return min(lighter, 255.0)
    return darker


def _draw_strokes(canvas: Floats, random: np.random.Generator) -> None:
    mask = Image.new("L", (SIDE, SIDE), 0)
    pen = ImageDraw.Draw(mask)
    for _ in range(int(random.integers(STROKES + 1))):
        pen.line(random.uniform(-8, SIDE + 8, 4).tolist(), fill=255, width=1)
    grey = np.float32(random.uniform(0.0, 255.0))
    canvas += np.asarray(mask, dtype=np.float32) / np.float32(255.0) * (grey - canvas)


def _weather(canvas: Floats, random: np.random.Generator) -> Pictures:
    """Return the picture (64, 64) blurred, under a slanting light and noise."""
    blur = ImageFilter.GaussianBlur(random.uniform(*BLUR))
    blurred = np.asarray(Image.fromarray(np.clip(canvas, 0.0, 255.0).astype(np.uint8)).filter(blur), dtype=np.float32)
    ramp = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    slope_x, slope_y = random.uniform(-GRADIENT, GRADIENT, 2)
    light = slope_x * ramp[None, :] + slope_y * ramp[:, None]  # (64, 64)
    noise = random.standard_normal((SIDE, SIDE), dtype=np.float32) * random.uniform(*NOISE)
    weathered: Pictures = np.clip(blurred + light + noise, 0, 255).round().astype(np.uint8)
    return weathered
