"""Agreement of detectors: full's boxes taken for the truth, and the variant's matched with them.

For a threshold t of overlap, the variant's boxes are taken by falling score and each claims the free box of full of the
same class that it overlaps most, if by at least t (intersection over union). With m matches among n_f and n_v boxes the
agreement is F1 = 2 m / (n_f + n_v), 1 where both see nothing. Its mean over t = 0.5, 0.55 ... 0.95, as COCO's mAP takes
them (Lin et al. 2014), less from 1 is the loss. F1 and not average precision, because one picture has few boxes and a
loss is needed for each. The distance is 1 - F1 at 0.5: it asks only whether the same things are seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.policy.drift.pairs import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Reals = NDArray[np.float64]

OVERLAPS: Final = tuple(0.5 + 0.05 * step for step in range(10))


@dataclass(frozen=True, slots=True)
class Boxes:
    """What a detector sees in one picture, by falling score: corners (n, 4) as x1, y1, x2, y2, and classes (n,)."""

    corners: Reals
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class Detection:
    """Compares outputs boxes (rows, n, 4), scores (rows, n) and classes (rows, n).

    Boxes that score less than ``least_score`` do not count, which is also how rows of fewer boxes are padded.
    """

    least_score: float = 0.3

    def compare(self, full: Sequence[NDArray[Any]], variant: Sequence[NDArray[Any]]) -> tuple[Pair, ...]:
        """Return one pair for each row."""
        return tuple(_compare(self._boxes(full, row), self._boxes(variant, row)) for row in range(len(full[0])))

    def _boxes(self, outputs: Sequence[NDArray[Any]], row: int) -> Boxes:
        corners, scores, classes = (np.asarray(output[row]) for output in outputs[:3])
        flat = scores.reshape(-1).astype(np.float64)
        order = np.argsort(-flat, kind="stable")
        kept = order[flat[order] >= self.least_score]
        return Boxes(corners.reshape(-1, 4).astype(np.float64)[kept], classes.reshape(-1)[kept].astype(np.int64))


def overlaps(first: Reals, second: Reals) -> Reals:
    """Return the intersection over union of boxes (n, 4) with boxes (m, 4), (n, m); boxes without area overlap none."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(2)  # (n, m)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0.0))


def _compare(full: Boxes, variant: Boxes) -> Pair:
    if len(full) + len(variant) == 0:
        return Pair(loss=0.0, distance=0.0)
    table = overlaps(variant.corners, full.corners)  # (n_v, n_f)
    table = np.where(variant.classes[:, None] == full.classes[None, :], table, 0.0)
    scores = [2.0 * _matches(table, least) / (len(full) + len(variant)) for least in OVERLAPS]
    return Pair(loss=1.0 - sum(scores) / len(scores), distance=1.0 - scores[0])


def _matches(table: Reals, least: float) -> int:
    """Return how many rows of ``table`` claim a column of at least ``least``, the first row choosing first."""
    free = table.copy()
    found = 0
    for row in free:
        best = int(row.argmax()) if len(row) else -1
        if best >= 0 and row[best] >= least:
            free[:, best] = -1.0
            found += 1
    return found
