"""Faults to put into pictures.

Each is a function of rows (rows, channels, height, width), a strength 0..1 and a generator; values stay within the
rows' own range. Strengths are chosen so that 1 costs a classifier much and 0.3 a little. ``GENERIC`` names those whose
kind the build also learns its error from (``variants.perturbing``, in other strengths); the rest it has never seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Rows = NDArray[np.float32]
Shift = Callable[[Rows, float, np.random.Generator], Rows]


def _blur(rows: Rows, strength: float, _: np.random.Generator) -> Rows:
    spread = strength * 0.035 * rows.shape[-1] + 0.25
    return _kept(rows, ndimage.gaussian_filter(rows, (0, 0, spread, spread)))


def _noise(rows: Rows, strength: float, chance: np.random.Generator) -> Rows:
    return _kept(rows, rows + chance.normal(0.0, 0.25 * strength * _span(rows), rows.shape))


def _rotation(rows: Rows, strength: float, _: np.random.Generator) -> Rows:
    return _kept(rows, ndimage.rotate(rows, 35.0 * strength, axes=(3, 2), reshape=False, order=1, mode="nearest"))


def _translation(rows: Rows, strength: float, _: np.random.Generator) -> Rows:
    step = 0.2 * strength * rows.shape[-1]
    return _kept(rows, ndimage.shift(rows, (0, 0, step, step), order=1, mode="nearest"))


def _zoom(rows: Rows, strength: float, _: np.random.Generator) -> Rows:
    factor, middle = 1.0 + 0.6 * strength, (rows.shape[-1] - 1) / 2
    offset = middle - factor * middle
    return _kept(
        rows, ndimage.affine_transform(rows, (1, 1, factor, factor), (0, 0, offset, offset), order=1, mode="nearest")
    )


def _gain(rows: Rows, strength: float, _: np.random.Generator) -> Rows:
    return _kept(rows, rows * (1.0 - 0.75 * strength))


def _saturation(rows: Rows, strength: float, _: np.random.Generator) -> Rows:
    return _kept(rows, rows * (1.0 + 2.0 * strength))


def _lighting(rows: Rows, strength: float, _: np.random.Generator) -> Rows:
    ramp = np.linspace(0.0, 0.8 * strength * _span(rows), rows.shape[-1])
    return _kept(rows, rows + ramp)


def _dead_pixels(rows: Rows, strength: float, chance: np.random.Generator) -> Rows:
    """The same pixels are dead in every picture, as on a sensor."""
    return np.where(chance.random(rows.shape[1:]) < 0.25 * strength, rows.min(), rows).astype(np.float32)


def _occlusion(rows: Rows, strength: float, chance: np.random.Generator) -> Rows:
    side = rows.shape[-1]
    edge = max(1, round(0.5 * strength * side))
    covered = rows.copy()
    for picture in covered:
        top, left = chance.integers(0, side - edge + 1, 2)
        picture[:, top : top + edge, left : left + edge] = rows.min()
    return covered


def _few_levels(rows: Rows, strength: float, _: np.random.Generator) -> Rows:
    levels = round(8 - 6 * strength)
    scaled = (rows - rows.min()) / _span(rows)
    return _kept(rows, np.round(scaled * (levels - 1)) / (levels - 1) * _span(rows) + rows.min())


def _shot_noise(rows: Rows, strength: float, chance: np.random.Generator) -> Rows:
    """Salt and pepper: other pixels in every picture."""
    hit = chance.random(rows.shape) < 0.2 * strength
    return np.where(hit, chance.choice([rows.min(), rows.max()], rows.shape), rows).astype(np.float32)


SHIFTS: Final[dict[str, Shift]] = {
    "blur": _blur,
    "noise": _noise,
    "rotation": _rotation,
    "translation": _translation,
    "zoom": _zoom,
    "sensor gain": _gain,
    "saturation": _saturation,
    "lighting": _lighting,
    "dead pixels": _dead_pixels,
    "occlusion": _occlusion,
    "few levels": _few_levels,
    "shot noise": _shot_noise,
}
GENERIC: Final = ("blur", "noise", "sensor gain", "translation", "dead pixels")


def _span(rows: Rows) -> float:
    return float(rows.max() - rows.min()) or 1.0


def _kept(rows: Rows, changed: NDArray[Any]) -> Rows:
    limited: Rows = np.clip(changed, rows.min(), rows.max()).astype(np.float32)
    return limited
