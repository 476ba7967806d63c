"""What a variant answers on held-out rows, measured alone and against full on the same rows.

Everything here works on outputs (rows, ...) that were already computed, so that it is fast, pure and the same for
every source of models. What a right answer is, ``variants.scoring`` says; the interval and the paired comparison take
any 0/1 score of rows. Divergence in nats and the error of calibration are of classes alone, as are the confidences
and predictions of the reference.

Expected calibration error (Guo et al. 2017): rows are put into 15 equal-width bins by confidence, and the gaps
between a bin's mean confidence and its accuracy are averaged, weighted by rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from variants.evidence import Accuracy, Histogram, Reference
from variants.intervals import judge, mcnemar, wilson
from variants.probabilities import as_logits, mean_kl, softmax
from variants.scoring import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from variants.recipe import Classes, Floats, Inputs, Labels
    from variants.scoring import Scoring

MARGINS: Final = (0.01, 0.001)
CALIBRATION_BINS: Final = 15
CONFIDENCE_BINS: Final = 20
INPUT_BINS: Final = 32


@dataclass(frozen=True, slots=True)
class TestSet:
    """What a variant is measured on: the data's name and hash, the labels (rows, ...), and what is right."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    metric: str
    dataset: str
    sha256: str
    labels: Labels
    scoring: Scoring = CLASSES


@dataclass(frozen=True, slots=True)
class Relatives:
    """The outputs (rows, ...) that a variant is compared with; full has no ``parent``."""

    full: Floats
    parent: Floats | None


def evaluate(outputs: Floats, relatives: Relatives, test: TestSet, calibration_sha256: str | None) -> Accuracy:
    """Measure ``outputs`` (rows, ...) against labels, and against its relatives row by row.

    Full gets no verdict of non-inferiority: it is what others are judged against.
    """
    full, parent, scoring = relatives.full, relatives.parent, test.scoring
    right, full_right = scoring.right(outputs, test.labels), scoring.right(full, test.labels)  # (rows,) bool
    margins = () if parent is None else MARGINS
    rows, lost, gained = len(right), int((full_right & ~right).sum()), int((right & ~full_right).sum())
    low, high = wilson(int(right.sum()), rows)
    has_classes = scoring.task == "classification"
    return Accuracy(
        metric=test.metric,
        dataset=test.dataset,
        dataset_sha256=test.sha256,
        rows=rows,
        value=float(right.mean()),
        low=low,
        high=high,
        ratio_to_full=float(right.mean() / max(full_right.mean(), 1 / rows)),
        flips=int((~scoring.same(outputs, full)).sum()),
        lost=lost,
        gained=gained,
        mcnemar_p=mcnemar(lost, gained),
        non_inferiority=tuple(judge(lost, gained, rows, margin) for margin in margins),
        kl_to_full=_kl(full, outputs) if has_classes else None,
        kl_to_parent=_kl(parent, outputs) if has_classes and parent is not None else None,
        calibration_error=calibration_error(as_logits(outputs), test.labels) if has_classes else None,
        calibration_sha256=calibration_sha256,
        beside=scoring.beside(outputs, test.labels),
    )


def _kl(reference: Floats, outputs: Floats) -> float:
    return mean_kl(as_logits(reference), as_logits(outputs))


def is_correct(logits: Floats, labels: Classes) -> NDArray[np.bool_]:
    """Return which rows have their largest logit at the label."""
    return np.asarray(logits.argmax(1) == labels)


def calibration_error(logits: Floats, labels: Classes) -> float:
    """Return the expected calibration error, 0..1."""
    confidence = softmax(logits).max(axis=1)  # (rows,)
    right = is_correct(logits, labels)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    surplus = np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)  # rows * gap, by bin
    return float(np.abs(surplus).sum() / len(labels))


def describe_reference(inputs: dict[str, Inputs], outputs: Floats, labels: tuple[str, ...]) -> Reference:
    """Return the distributions on validation rows that drift is later compared with; no ``labels``, no classes."""
    confidence = softmax(as_logits(outputs)).max(axis=1) if labels else None
    predicted = np.bincount(outputs.argmax(1), minlength=len(labels)) if labels else ()
    return Reference(
        rows=len(outputs),
        inputs={
            name: histogram(values, (float(values.min()), float(values.max())), INPUT_BINS)
            for name, values in inputs.items()
        },
        confidence=None if confidence is None else histogram(confidence, (0.0, 1.0), CONFIDENCE_BINS),
        predictions={label: int(count) for label, count in zip(labels, predicted, strict=True)},
    )


def histogram(values: NDArray[Any], limits: tuple[float, float], bins: int) -> Histogram:
    """Return how many of ``values`` lie in each of ``bins`` equal parts of ``limits``."""
    counts, edges = np.histogram(values, bins=bins, range=limits)
    return Histogram(edges=tuple(map(float, edges)), counts=tuple(map(int, counts)))
