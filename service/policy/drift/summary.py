"""A few numbers for each row of an input, whatever its shape, in which the usual faults show.

Levels: the means of eight equal parts of the row as it lies in memory (for pictures: bands from top to bottom), and of
eight parts of its last axis (for pictures: from left to right). Contrast: the standard deviation. Texture: the mean
absolute step between neighbours along the last axis and, where there is one, the axis before it; blur takes it away,
noise adds it. Up to 19 numbers. The build and the gateway must compute the same (``variants.summarising`` is the
twin), so that nothing here may change without a new manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS: Final = 8


def summarise(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the summaries (rows, numbers) of ``rows`` (rows, ...); not finite values count as 0."""
    values = np.nan_to_num(np.asarray(rows, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    flat = values.reshape(len(values), -1)  # (rows, elements)
    columns = [_part_means(flat)]
    if values.ndim > 2:  # noqa: PLR2004 - rows and one axis are flat already
        columns.append(_part_means(values.reshape(len(values), -1, values.shape[-1]).mean(1)))
    columns.append(flat.std(1, keepdims=True))
    columns.extend(_steps(values, axis) for axis in range(-1, -min(values.ndim, 3), -1) if values.shape[axis] > 1)
    return np.concatenate(columns, axis=1)


def _part_means(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = np.array_split(flat, min(PARTS, flat.shape[1]), axis=1)
    return np.stack([part.mean(1) for part in parts], axis=1)


def _steps(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(np.abs(np.diff(values, axis=axis)).reshape(len(values), -1).mean(1, keepdims=True))
