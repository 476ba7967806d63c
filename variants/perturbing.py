"""Validation rows made worse in known ways, to learn how far confidence can be trusted when inputs shift.

Nothing here knows what the rows are: noise, gain, a moving average, masked values, a shift along the axes, another row
mixed in. They stand for shifts in general, not for the ones that will come; what is learnt from them is how much worse
an estimate becomes with distance (``drifting``), not what accuracy a given shift leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from variants.sampling import sample_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from variants.recipe import Floats, Inputs

MOST_ROWS: Final = 200
NOISE: Final = (0.3, 0.8, 1.5)
GAINS: Final = (0.2, 0.5, 1.8)
WIDTHS: Final = (2, 3, 5)
MASKED: Final = (0.1, 0.25)
SHIFTED: Final = (0.06, 0.12, 0.2)
MIXED: Final = (0.2, 0.35)


def perturb(inputs: Inputs, seed: int) -> tuple[Inputs, ...]:
    """Return ``inputs`` (rows, ...) at ``perturbed_places`` under every perturbation, within the inputs' range.

    Nothing where rows are no floating-point numbers: a wrong token is no noise.
    """
    if not np.issubdtype(inputs.dtype, np.floating):
        return ()
    rows = inputs[perturbed_places(len(inputs))].astype(np.float32)
    low, high = float(inputs.min()), float(inputs.max())
    chance = np.random.default_rng(seed)
    return tuple(np.clip(changed, low, high).astype(inputs.dtype) for changed in _changes(rows, low, chance))


def perturbed_places(rows: int) -> NDArray[np.int64]:
    """Return which of so many rows are perturbed, at most ``MOST_ROWS``, ascending."""
    return sample_rows(rows, MOST_ROWS)


def _changes(rows: Floats, low: float, chance: np.random.Generator) -> Iterator[NDArray[Any]]:
    side, spread = rows.shape[-1], float(rows.std())
    yield from (rows + chance.normal(0.0, scale * spread, rows.shape) for scale in NOISE)
    yield from (rows * gain for gain in GAINS)
    yield from (_smooth(rows, width) for width in WIDTHS if width <= side // 3)
    yield from (np.where(chance.random(rows.shape) < share, low, rows) for share in MASKED)
    yield from (_shift(rows, max(1, round(share * side))) for share in SHIFTED)
    yield from ((1.0 - share) * rows + share * rows[chance.permutation(len(rows))] for share in MIXED)


def _axes(rows: Floats) -> tuple[int, ...]:
    """Return the axes along which neighbours mean something: the last two of pictures, else the last one."""
    return (-1,) if rows.ndim < 3 else (-1, -2)  # noqa: PLR2004 - rows, and two of a picture


def _smooth(rows: Floats, width: int) -> Floats:
    for axis in _axes(rows):
        rows = np.mean([np.roll(rows, step - width // 2, axis) for step in range(width)], axis=0)
    return rows


def _shift(rows: Floats, step: int) -> Floats:
    for axis in _axes(rows):
        rows = np.roll(rows, step, axis)
    return rows
