"""Mean average precision: the usual measure of detectors, one number over a whole set of pictures.

All boxes of a class, from all pictures, are taken by falling score. Those that match a label (``variants.boxes.match``)
are true, all others false alarms. After the k best of them::

    precision = true / k        recall = true / labels of the class

Precision at a recall is the best precision at that or any greater recall, and the average precision of the class its
mean over the recalls 0, 0.01 .. 1 (Lin et al. 2014, "Microsoft COCO", and its evaluation code: 101 points). The mean
over the classes that have labels is mAP; at overlap 0.5 it is ``mAP@0.5``, and the mean over 0.5, 0.55 .. 0.95 is
``mAP@0.5:0.95``.

It has no 0/1 score of a row, so nothing can be proven of it by paired comparison; it stands beside the share of
pictures that are right. It counts low scores that nobody would show, and ranks across pictures: a variant whose scores
are all a little lower keeps its mAP and may lose pictures.

The same boxes give the same figures as COCO's evaluation code, if no label is a crowd. Of a picture the 300 boxes of
the highest scores are looked at, and suppressed among themselves; Ultralytics suppresses among thousands and keeps 300,
which finds a little more in crowded pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from variants.boxes import match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from variants.boxes import Bools, Found

LEAST_SCORE: Final = 0.001
"""Boxes below it change no average precision that anybody reads; Ultralytics' own limit for this measure."""
RECALLS: Final = np.linspace(0.0, 1.0, 101)


def mean_average_precision(found: Found, labels: Found, overlaps: Sequence[float] = (0.5,)) -> float:
    """Return mAP, 0..1, mean over ``overlaps``; 0 where no picture has a label."""
    names = np.unique(labels.classes[labels.are_real])
    if not len(names):
        return 0.0
    return float(np.mean([_by_class(found, labels, names, match(found, labels, least)).mean() for least in overlaps]))


def _by_class(found: Found, labels: Found, names: NDArray[np.int64], claims: Bools) -> NDArray[np.float64]:
    """Return the average precision of each class in ``names``; ``claims`` (rows, n) are the boxes that match."""
    averages = []
    for name in names:
        own = found.classes == name
        order = np.argsort(-found.scores[own], kind="stable")
        averages.append(average_precision(claims[own][order], int((labels.classes == name).sum())))
    return np.asarray(averages)


def average_precision(are_true: Bools, labels: int) -> float:
    """Return the average precision of one class, 0..1; ``are_true`` (boxes,) by falling score, ``labels`` to find."""
    true = np.cumsum(are_true)
    precision, recall = true / np.arange(1, len(true) + 1), true / labels
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or any greater one
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(best, 0.0)[places].mean())
