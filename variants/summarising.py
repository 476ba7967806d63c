"""A few numbers for each row of an input, in which the usual faults show; ``service.policy.drift.summary`` is its twin.

The gateway cannot import the build nor the build the gateway, so the formula stands twice; a test holds the two
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from variants.drift_reference import InputDrift

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from variants.probabilities import Reals
    from variants.recipe import Inputs

PARTS: Final = 8
QUANTILES: Final = 21
FOLDS: Final = 10
FEWEST_ROWS: Final = 40
_DIGITS: Final = 6
_LEAST_SHARE: Final = 1e-4
"""Directions that vary less than this share of the widest are sums of others, or noise of rounding."""


def describe_inputs(name: str, inputs: Inputs) -> InputDrift | None:
    """Return the reference of ``inputs`` (rows, ...); ``None`` where they are no numbers, or too few rows."""
    if not np.issubdtype(inputs.dtype, np.number):
        return None
    summaries = summarise(inputs)
    rows, numbers = summaries.shape
    if rows < max(FEWEST_ROWS, 2 * numbers):
        return None
    means, whitening = _whiten(summaries)
    if whitening.shape[1] == 0:
        return None
    distances = np.quantile(_held_out_distances(summaries), np.linspace(0.0, 1.0, QUANTILES))
    return InputDrift(
        name=name,
        rows=rows,
        means=_rounded(means),
        whitening=tuple(map(_rounded, whitening)),
        distances=_rounded(distances),
    )


def summarise(rows: NDArray[Any]) -> Reals:
    """Return the summaries (rows, numbers) of ``rows`` (rows, ...): levels, contrast, texture."""
    values = np.nan_to_num(np.asarray(rows, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    flat = values.reshape(len(values), -1)  # (rows, elements)
    columns = [_part_means(flat)]
    if values.ndim > 2:  # noqa: PLR2004 - rows and one axis are flat already
        columns.append(_part_means(values.reshape(len(values), -1, values.shape[-1]).mean(1)))
    columns.append(flat.std(1, keepdims=True))
    columns.extend(_steps(values, axis) for axis in range(-1, -min(values.ndim, 3), -1) if values.shape[axis] > 1)
    return np.concatenate(columns, axis=1)


def _part_means(flat: Reals) -> Reals:
    parts = np.array_split(flat, min(PARTS, flat.shape[1]), axis=1)
    return np.stack([part.mean(1) for part in parts], axis=1)


def _steps(values: Reals, axis: int) -> Reals:
    return np.asarray(np.abs(np.diff(values, axis=axis)).reshape(len(values), -1).mean(1, keepdims=True))


def _whiten(summaries: Reals) -> tuple[Reals, Reals]:
    """Return the means (numbers,) and the matrix (numbers, directions) that gives unit, uncorrelated directions."""
    means, spread = summaries.mean(0), summaries.std(0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0.0)
    values, vectors = np.linalg.eigh(np.cov((summaries - means) * scale, rowvar=False))
    kept = values > _LEAST_SHARE * max(float(values.max()), 1e-12)
    return means, scale[:, None] * vectors[:, kept] / np.sqrt(values[kept])


def _held_out_distances(summaries: Reals) -> Reals:
    """Return each row's squared length under a whitening that has not seen it, (rows,)."""
    folds = np.arange(len(summaries)) % FOLDS
    distances = np.empty(len(summaries))
    for fold in range(FOLDS):
        means, whitening = _whiten(summaries[folds != fold])
        distances[folds == fold] = np.square((summaries[folds == fold] - means) @ whitening).sum(1)
    return distances


def _rounded(values: Reals) -> tuple[float, ...]:
    """Return the values to a few digits: the manifest stays small."""
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
