"""Agreement of regressors: the relative error of the variant against full, limited to 1.

    loss = mean over a row's values of min(1, |v - f| / max(|f|, scale))

``scale`` keeps values near zero from counting as wholly wrong; the build takes the standard deviation of full's values
on validation rows. The loss is bounded, so that the sequential test holds for it as for disagreement; one wild value
costs 1 and not a million.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from service.policy.drift.pairs import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Regression:
    """Compares every output, value by value; ``scale`` is in the outputs' unit."""

    scale: float = 1.0

    def compare(self, full: Sequence[NDArray[Any]], variant: Sequence[NDArray[Any]]) -> tuple[Pair, ...]:
        """Return one pair for each row; a value that is not finite in one of the two counts as wholly wrong."""
        errors = np.concatenate(
            [self._relative(wanted, given) for wanted, given in zip(full, variant, strict=True)], axis=1
        ).mean(1)  # (rows,)
        return tuple(Pair(loss=loss, distance=loss) for loss in errors.tolist())

    def _relative(self, full: NDArray[Any], variant: NDArray[Any]) -> NDArray[np.float64]:
        wanted = np.asarray(full, dtype=np.float64).reshape(len(full), -1)
        given = np.asarray(variant, dtype=np.float64).reshape(len(variant), -1)
        with np.errstate(invalid="ignore"):
            ratio = np.abs(given - wanted) / np.maximum(np.abs(wanted), self.scale)
        return np.minimum(np.where(np.isfinite(ratio), ratio, 1.0), 1.0)
