"""Boxes of a detector: how an answer is read, what overlaps, what matches.

**Layout.** An answer is YOLO's, as Ultralytics' exports have it from version 8 on: (rows, 4 + classes, places), where
each place of the picture says centre x, y, width and height of one box in pixels of the input, and then a score 0..1
for each class, of which the largest counts. Labels are (rows, most, 5): class number, centre x, y, width, height in the
same pixels, filled up with rows of class -1 where a picture has fewer objects than ``most``.

**Suppression.** Neighbouring places see the same object. Boxes below a least score are dropped; the rest is taken by
falling score, and each that stays removes those of its class that it overlaps by more than a limit (intersection over
union). Greedy suppression is as old as Viola and Jones 2001; it loses an object that another of its class hides by more
than the limit.

**Matching.** By falling score each box claims the free label of its class that it overlaps most, if by at least a limit
(Everingham et al. 2010, "The PASCAL VOC challenge", section 4.2; COCO does the same).

All is computed for many pictures at once, place after place, so that a loop is as long as a picture has boxes and not
as a data set has pictures. ``service.policy.drift.detection`` reads single answers in the gateway by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from variants.recipe import Floats, Labels

    Bools = NDArray[np.bool_]

COORDINATES: Final = 4
FIELDS: Final = 5
"""Of a label: class, and the four coordinates."""
MOST_BOXES: Final = 300
"""Of one picture, before suppression, since comparing each with each takes the square of it."""
ROWS_AT_ONCE: Final = 128
OVERLAPS: Final = tuple(0.5 + 0.05 * step for step in range(10))


@dataclass(frozen=True, slots=True)
class Found:
    """Boxes of pictures, by falling score: ``corners`` (rows, n, 4) as x1, y1, x2, y2, and the rest (rows, n).

    Rows of fewer boxes are filled up with class -1 and score 0.
    """

    corners: Floats
    classes: NDArray[np.int64]
    scores: Floats

    @property
    def are_real(self) -> Bools:
        """Which are boxes and no filling, (rows, n)."""
        return np.asarray(self.classes >= 0)


def read_answers(outputs: Floats, least_score: float, suppression: float) -> Found:
    """Return what answers (rows, 4 + classes, places) say, suppressed; a score that is no number is none."""
    parts = [outputs[start : start + ROWS_AT_ONCE] for start in range(0, len(outputs), ROWS_AT_ONCE)]
    found = [_suppress(_likely(part, least_score), suppression) for part in parts]
    most = max((part.classes.shape[1] for part in found), default=0)
    padded = [_pad(part, most) for part in found]
    return Found(*(np.concatenate(columns) for columns in zip(*padded, strict=True)))


def read_labels(labels: Labels) -> Found:
    """Return labels (rows, most, 5) as boxes of score 1."""
    classes = labels[..., 0].astype(np.int64)
    return Found(corners_of(labels[..., 1:]), classes, (classes >= 0).astype(np.float32))


def label_problem(labels: Labels, classes: int) -> str:
    """Return what is wrong with labels (rows, most, 5) of ``classes`` classes, '' if nothing is."""
    is_table = labels.ndim == 3 and labels.shape[1] > 0 and labels.shape[2] == FIELDS  # noqa: PLR2004 - pictures, objects, fields
    if not is_table or not np.issubdtype(labels.dtype, np.floating):
        return (
            f"labels {labels.dtype}{list(labels.shape)}; expected floats [rows, most objects, {FIELDS}]: class, "
            "centre x, y, width, height, and class -1 where a picture has fewer (one such row where none has any)"
        )
    found = labels[..., 0]  # (rows, most)
    checks = (
        (~np.isfinite(labels).all(-1), "every field of a label is a finite number"),
        (~np.isin(found, np.arange(-1, classes)), f"classes are whole numbers 0..{classes - 1}, and -1 for no object"),
        ((found >= 0.0) & (labels[..., 3:] <= 0.0).any(-1), "width and height are above 0"),
    )
    for are_wrong, allowed in checks:
        if are_wrong.any():
            row, place = (int(number) for number in np.argwhere(are_wrong)[0])
            fields = ", ".join(f"{value:.4g}" for value in labels[row, place])
            return f"the label [{fields}] at row {row}; {allowed}"
    return ""


def as_labels(found: Found) -> Labels:
    """Return boxes as labels (rows, n, 5)."""
    low, high = found.corners[..., :2], found.corners[..., 2:]
    boxes = np.concatenate([found.classes[..., None], (low + high) / 2.0, high - low], axis=-1).astype(np.float32)
    return np.where(found.are_real[..., None], boxes, np.float32(-1.0))


def corners_of(boxes: Floats) -> Floats:
    """Return corners (..., 4) of centres and sizes (..., 4)."""
    centres, halves = boxes[..., :2], boxes[..., 2:4] / 2.0
    return np.concatenate([centres - halves, centres + halves], axis=-1)


def overlaps(first: Floats, second: Floats) -> Floats:
    """Return the intersection over union of corners (rows, n, 4) and (rows, m, 4), (rows, n, m); 0 without area."""
    low = np.maximum(first[:, :, None, :2], second[:, None, :, :2])
    high = np.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(-1)  # (rows, n, m)
    areas = [np.clip(boxes[..., 2:] - boxes[..., :2], 0.0, None).prod(-1) for boxes in (first, second)]
    union = areas[0][:, :, None] + areas[1][:, None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0.0))


def match(found: Found, wanted: Found, least_overlap: float) -> Bools:
    """Return which boxes (rows, n) claim one of ``wanted`` (rows, m), each of which is claimed once."""
    table = overlaps(found.corners, wanted.corners)
    table[(found.classes[:, :, None] != wanted.classes[:, None, :]) | ~found.are_real[:, :, None]] = -1.0
    claims = np.zeros(found.classes.shape, dtype=bool)
    if not table.shape[2]:
        return claims
    rows = np.arange(len(table))
    for place in range(table.shape[1]):
        best = table[:, place].argmax(1)  # (rows,)
        claims[:, place] = table[rows, place, best] >= least_overlap
        table[rows[claims[:, place]], :, best[claims[:, place]]] = -1.0
    return claims


def are_same(found: Found, wanted: Found, least_overlap: float) -> Bools:
    """Return in which pictures (rows,) every box has its match, on both sides."""
    claims, seen, asked = match(found, wanted, least_overlap).sum(1), found.are_real.sum(1), wanted.are_real.sum(1)
    return np.asarray((claims == seen) & (seen == asked))


def disagreement(full: Found, variant: Found) -> NDArray[np.float64]:
    """Return for each picture (rows,) what the variant's boxes lack of agreeing with full's, 0..1.

    1 less the mean, over overlaps 0.5, 0.55 .. 0.95, of F1 = 2 matches / boxes of both; 0 where both see nothing.
    """
    boxes = variant.are_real.sum(1) + full.are_real.sum(1)  # (rows,)
    claims = np.mean([match(variant, full, least).sum(1) for least in OVERLAPS], axis=0)
    return 1.0 - np.where(boxes == 0, 1.0, 2.0 * claims / np.maximum(boxes, 1))


def _likely(outputs: Floats, least_score: float) -> Found:
    """Return the boxes of at least ``least_score``, by falling score, as many columns as the fullest picture needs."""
    scores = np.nan_to_num(outputs[:, COORDINATES:].max(1), nan=0.0)  # (rows, places)
    most = min(MOST_BOXES, int((scores >= least_score).sum(1).max(initial=0)))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :most]  # (rows, most)
    boxes = np.take_along_axis(outputs[:, :COORDINATES], order[:, None], axis=2).transpose(0, 2, 1)  # (rows, most, 4)
    classes = np.take_along_axis(outputs[:, COORDINATES:], order[:, None], axis=2).argmax(1)  # (rows, most)
    found = np.take_along_axis(scores, order, axis=1)
    return Found(corners_of(boxes), np.where(found >= least_score, classes, -1), found)


def _suppress(found: Found, limit: float) -> Found:
    """Return the boxes that stay, moved together."""
    rivals = (overlaps(found.corners, found.corners) > limit) & (found.classes[:, :, None] == found.classes[:, None, :])
    stays = found.are_real
    for place in range(stays.shape[1]):
        stays[:, place + 1 :] &= ~(rivals[:, place, place + 1 :] & stays[:, place, None])
    order = np.argsort(~stays, axis=1, kind="stable")[:, : int(stays.sum(1).max(initial=0))]
    stayed = np.take_along_axis(stays, order, axis=1)
    classes, scores = (np.take_along_axis(column, order, axis=1) for column in (found.classes, found.scores))
    corners = np.take_along_axis(found.corners, order[..., None], axis=1)
    return Found(corners, np.where(stayed, classes, -1), np.where(stayed, scores, np.float32(0.0)))


def _pad(found: Found, most: int) -> tuple[Floats, NDArray[np.int64], Floats]:
    missing = ((0, 0), (0, most - found.classes.shape[1]))
    return (
        np.pad(found.corners, (*missing, (0, 0))),
        np.pad(found.classes, missing, constant_values=-1),
        np.pad(found.scores, missing),
    )
