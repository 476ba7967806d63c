"""Labels that come late: what is kept of an answer, and how good a label says that it was.

Kept of each row is its *reading* (``policy.drift.matching``): its class, its values, or its boxes. A label has one
entry for each row of the request: a class, by its index or its name; a value, or a list of them; or a list of boxes,
each as class, centre x, centre y, width and height in pixels of the model's input, empty where nothing is to be seen.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.domain.drift import ByBoxes, ByClass
from service.engine.drift.predictions import Prediction
from service.policy.drift.matching import matches, readings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from service.domain.drift import Scoring
    from service.domain.variants import ModelInfo
    from service.domain.verdicts import Label
    from service.engine.drift.references import ModelReference
    from service.engine.drift.taps import KeptAnswer

    Reals = NDArray[np.float64]

_READING: Final = 6
"""Numbers of a box as it is read, and below as a label has it."""
_LABELLED: Final = 5
_PLACE: Final = 4
"""Rows of a detector's answer before those of its classes."""
_NO_CLASS: Final = -1.0
_MOST_VALUES: Final = 4096
"""Of one row; what has more is a picture rather than an answer that somebody labels."""


def predictions_of(
    answers: Sequence[KeptAnswer], info: ModelInfo, reference: ModelReference, now_s: float
) -> Iterable[Prediction]:
    """Yield what is kept of answers: the reading and the confidence of each row."""
    scoring = reference.scoring
    if scoring is None:
        return
    known = {item.name: item.digest for item in info.variants}
    is_small = isinstance(scoring, ByClass | ByBoxes)
    kept = [item for item in answers if is_small or item.output[:1].size <= _MOST_VALUES]
    for item, read, sure in zip(kept, _read(kept, scoring), _confidences(kept, reference), strict=True):
        yield Prediction(item.request_id, info.name, item.variant, known[item.variant], now_s, read, sure)


def score_of(label: Label, predicted: Reals, info: ModelInfo, scoring: Scoring) -> float | None:
    """Return the share of rows, (rows, numbers), that a label calls right, ``None`` where it does not fit them."""
    if len(label.values) != len(predicted):
        return None
    right = []
    for value, row in zip(label.values, predicted, strict=True):
        reading = row.reshape(-1, _READING) if isinstance(scoring, ByBoxes) else row
        wanted = _wanted(value, info, scoring)
        if wanted is None or (not isinstance(scoring, ByBoxes) and wanted.shape != reading.shape):
            return None
        right.append(matches(reading, wanted, scoring))
    return float(np.mean(right))


def _wanted(value: Any, info: ModelInfo, scoring: Scoring) -> Reals | None:  # noqa: ANN401 - whatever JSON holds
    """Return what a row's label says in the form of a reading, ``None`` where it says nothing of this model."""
    if isinstance(scoring, ByClass):
        place = _class_of(value, info, info.outputs[0].shape[-1])
        return None if place is None else np.array([place], dtype=np.float64)
    try:
        if isinstance(scoring, ByBoxes):
            return np.array([_box(item, info) for item in value], dtype=np.float64).reshape(-1, _LABELLED)
        if isinstance(value, str):  # numpy would read it
            return None
        wanted = np.atleast_1d(np.array(value, dtype=np.float64))
        return wanted if np.isfinite(wanted).all() else None
    except (TypeError, ValueError, OverflowError):  # a text, a list of unequal lists, a number beyond all floats
        return None


def _box(item: Any, info: ModelInfo) -> list[float]:  # noqa: ANN401 - whatever JSON holds
    name, *place = item
    kind = _class_of(name, info, info.outputs[0].shape[1] - _PLACE)
    if kind is None or len(place) != _PLACE or any(isinstance(number, str) for number in place):
        raise ValueError("no class of this model, or no place and size")
    x, y, width, height = map(float, place)
    if not (isfinite(x) and isfinite(y) and 0.0 < width < inf and 0.0 < height < inf):
        raise ValueError("a box that nothing could overlap")
    return [float(kind), x, y, width, height]


def _read(answers: Sequence[KeptAnswer], scoring: Scoring) -> list[Reals]:
    """Return the readings of each answer, (rows, numbers); classes, the most frequent task, are read all together."""
    if isinstance(scoring, ByClass) and answers:
        table = np.stack(readings(_joined(answers), scoring))
        return np.split(table, np.cumsum([len(item.output) for item in answers])[:-1])
    read = [readings(item.output, scoring) for item in answers]
    return [_filled(rows) if isinstance(scoring, ByBoxes) else np.stack(rows) for rows in read]


def _filled(found: Sequence[Reals]) -> Reals:
    """Return the boxes of all rows as one table; rows of fewer are filled up with such as have no class."""
    table = np.full((len(found), max(1, *map(len, found)), _READING), _NO_CLASS)
    for row, boxes in zip(table, found, strict=True):
        row[: len(boxes)] = boxes
    return table.reshape(len(found), -1)


def _confidences(answers: Sequence[KeptAnswer], reference: ModelReference) -> list[NDArray[np.float32]]:
    """Return how sure each row of each answer is, 0..1, all computed together; a half where the task tells nothing."""
    if not answers:
        return []
    ends = np.cumsum([len(item.output) for item in answers])
    log_odds = getattr(reference.agreement, "log_odds", None)
    odds = np.zeros(ends[-1]) if log_odds is None else log_odds([_joined(answers)])
    return np.split((1.0 / (1.0 + np.exp(-odds))).astype(np.float32), ends[:-1])


def _joined(answers: Sequence[KeptAnswer]) -> NDArray[Any]:
    return np.concatenate([item.output.reshape(len(item.output), -1) for item in answers])  # (rows of all, classes)


def _class_of(value: Any, info: ModelInfo, scores: int) -> int | None:  # noqa: ANN401 - whatever JSON holds
    """Return the index of the class that a label names by its index or its name; ``scores`` is how many there are."""
    if isinstance(value, str):
        return info.labels.index(value) if value in info.labels else None
    classes = len(info.labels) or scores  # negative where the manifest leaves their number open
    is_index = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == value // 1
    return int(value) if is_index and (classes < 0 or value < classes) else None
