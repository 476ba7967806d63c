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
CLASS: Final = 0
MOST_BOXES: Final = 300
"""Of one picture, before suppression; Ultralytics' own bound."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """What a detector sees in one picture, by falling score: corners (n, 4) as x1, y1, x2, y2, and classes (n,)."""

    corners: Reals
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class Detection:
    """Compares one output (rows, 4 + classes, places) in YOLO's layout, or boxes (rows, n, 4), scores and classes.

    Of three outputs the scores and classes are (rows, n), and boxes are corners, suppressed already. Boxes that score
    less than ``least_score`` do not count, which is also how rows of fewer boxes are padded.
    """

    least_score: float = 0.3
    suppression: float = 0.45

    def compare(self, full: Sequence[NDArray[Any]], variant: Sequence[NDArray[Any]]) -> tuple[Pair, ...]:
        """Return one pair for each row; an answer with what is no number agrees with nothing."""
        return tuple(self._pair(full, variant, row) for row in range(len(full[0])))

    def _pair(self, full: Sequence[NDArray[Any]], variant: Sequence[NDArray[Any]], row: int) -> Pair:
        if any(np.isnan(np.asarray(output[row], dtype=np.float64)).any() for output in variant):
            return Pair(loss=1.0, distance=1.0)
        return _compare(self._boxes(full, row), self._boxes(variant, row))

    def _boxes(self, outputs: Sequence[NDArray[Any]], row: int) -> Boxes:
        if len(outputs) < 3:  # noqa: PLR2004 - boxes, scores and classes
            found = read_boxes(outputs[0][row], self.least_score, self.suppression)
            return Boxes(corners_of(found), found[:, CLASS].astype(np.int64))
        corners, scores, classes = (np.asarray(output[row]) for output in outputs[:3])
        flat = scores.reshape(-1).astype(np.float64)
        order = np.argsort(-flat, kind="stable")
        kept = order[flat[order] >= self.least_score]
        return Boxes(corners.reshape(-1, 4).astype(np.float64)[kept], classes.reshape(-1)[kept].astype(np.int64))


def read_boxes(answer: NDArray[Any], least_score: float, suppression: float) -> Reals:
    """Return what one picture's answer (4 + classes, places) says, (n, 6): class, centre x, y, width, height, score.

    YOLO's layout: a box's centre and size, then the scores 0..1 of all classes, of which the largest counts. By falling
    score; of two of one class that overlap by more than ``suppression`` the first stays (``variants.boxes`` is the
    build's twin of this; a test holds the two together).
    """
    scores = answer[4:].max(0)  # (places,)
    likely = np.flatnonzero(scores >= least_score)
    order = likely[np.argsort(-scores[likely], kind="stable")[:MOST_BOXES]]
    columns = [answer[4:, order].argmax(0), *answer[:4, order], scores[order]]
    found = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)  # (n, 6)
    corners = corners_of(found)
    is_hidden = (overlaps(corners, corners) > suppression) & (found[:, None, CLASS] == found[None, :, CLASS])
    kept = np.ones(len(found), dtype=bool)
    for place in range(len(found)):
        if kept[place]:
            kept[place + 1 :] &= ~is_hidden[place, place + 1 :]
    return found[kept]


def corners_of(boxes: Reals) -> Reals:
    """Return the corners (n, 4) of boxes (n, 5 or 6) that begin with class, centre and size."""
    centres, halves = boxes[:, 1:3], boxes[:, 3:5] / 2.0
    return np.concatenate([centres - halves, centres + halves], axis=1)


def overlaps(first: Reals, second: Reals) -> Reals:
    """Return the intersection over union of boxes (n, 4) with boxes (m, 4), (n, m); boxes without area overlap none."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(2)  # (n, m)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0.0))


def overlaps_in_class(first: Boxes, second: Boxes) -> Reals:
    """Return the same as ``overlaps``, (n, m), and none between boxes of different classes."""
    table = overlaps(first.corners, second.corners)
    return np.where(first.classes[:, None] == second.classes[None, :], table, 0.0)


def _compare(full: Boxes, variant: Boxes) -> Pair:
    if len(full) + len(variant) == 0:
        return Pair(loss=0.0, distance=0.0)
    table = overlaps_in_class(variant, full)  # (n_v, n_f)
    scores = [2.0 * count_matches(table, least) / (len(full) + len(variant)) for least in OVERLAPS]
    return Pair(loss=1.0 - sum(scores) / len(scores), distance=1.0 - scores[0])


def count_matches(table: Reals, least: float) -> int:
    """Return how many rows of ``table`` claim a column of at least ``least``, the first row choosing first."""
    free = table.copy()
    found = 0
    for row in free:
        best = int(row.argmax()) if len(row) else -1
        if best >= 0 and row[best] >= least:
            free[:, best] = -1.0
            found += 1
    return found
