"""Is an answer right, or the same as another? One rule for each kind of model, the manifest's ``scoring``.

First an answer is *read*: what of it a label would say. A class is its number, (1,); values are themselves, flat,
(n,); boxes are (n, 6), one for each object seen: class, centre x, y, width, height, score, by falling score. Then a
reading is matched with a label in the same form, or with another reading:

    ByClass    the numbers are equal
    ByValue    no two values are farther apart than the tolerance
    ByBoxes    each box claims, by falling score, the free one of its class that it overlaps most, by ``overlap`` at
               least; all of both sides are claimed: nothing is missing, nothing is too much

Labels of boxes are (n, 5), the reading without its score, in pixels of the model's input; a class below 0 fills up and
does not count. A reading is small, so that it can be kept until its label comes. ``variants.scoring`` scores by the
same rules; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from service.domain.drift import ByBoxes, ByClass
from service.policy.drift.detection import CLASS, Boxes, corners_of, count_matches, overlaps_in_class, read_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.domain.drift import Scoring

    Reals = NDArray[np.float64]


def readings(output: NDArray[Any], scoring: Scoring) -> tuple[Reals, ...]:
    """Return what each row of the first output, (rows, ...), says, in the form that ``matches`` takes."""
    if isinstance(scoring, ByBoxes):
        return tuple(read_boxes(row, scoring.least_score, scoring.suppression) for row in output)
    flat = np.asarray(output, dtype=np.float64).reshape(len(output), -1)
    return tuple(flat.argmax(1, keepdims=True).astype(np.float64) if isinstance(scoring, ByClass) else flat)


def matches(reading: Reals, wanted: Reals, scoring: Scoring) -> bool:
    """Tell whether a row's reading is what a label, or another reading, says; of another shape it never is."""
    if isinstance(scoring, ByBoxes):
        return _match_boxes(_objects(reading), _objects(wanted), scoring.overlap)
    if reading.shape != wanted.shape:
        return False
    if isinstance(scoring, ByClass):
        return bool((reading == wanted).all())
    return bool((np.abs(reading - wanted) <= scoring.tolerance).all())


def _objects(boxes: Reals) -> Boxes:
    real = boxes[boxes[:, CLASS] >= 0.0]
    return Boxes(corners_of(real), real[:, CLASS].astype(np.int64))


def _match_boxes(seen: Boxes, wanted: Boxes, overlap: float) -> bool:
    return len(seen) == len(wanted) == count_matches(overlaps_in_class(seen, wanted), overlap)
