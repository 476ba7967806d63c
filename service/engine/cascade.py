"""After a cascade's first stage: which requests have their answer, and which should ask the bigger variant.

How sure a variant is of a row is its *margin*: the difference of the two highest values of the row in the first
output. The build has measured below which margin it pays to ask further. A request of several rows is as sure as its
least sure row. A margin that is no number is no reason to be sure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RANK = 2


def least_margin(outputs: tuple[NDArray[Any], ...]) -> float:
    """Return the smallest margin over the rows of the first output, (rows, classes >= 2); in the output's own units."""
    scores = outputs[0]
    if scores.ndim != _RANK or scores.shape[1] < _RANK:
        return float("inf")
    highest = np.partition(scores, -2, axis=1)[:, -2:]  # (rows, 2), ascending
    with np.errstate(invalid="ignore"):  # infinity less infinity is no number
        return float(np.min(highest[:, 1] - highest[:, 0]))


def is_unsure(outputs: tuple[NDArray[Any], ...], margin: float) -> bool:
    """Tell whether a first stage's answer should be asked for again, of the bigger variant."""
    return not least_margin(outputs) >= margin
