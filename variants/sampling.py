"""Some rows instead of all: a sample that speaks for the whole.

The first rows of a data set speak for few of its classes wherever rows are sorted or were gathered class by class, as
digits' are. What needs no more than some hundred rows takes them by chance instead, the same ones each time: a seed
decides, and where there are no more rows than wanted, all are taken in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sample_rows(count: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the ascending numbers of at most ``most`` of ``count`` rows, each as likely as any other."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
