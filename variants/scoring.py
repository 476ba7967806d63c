"""What a right answer is, for each kind of model.

Everything that is proven of variants is proven of a 0/1 score of each row: intervals, paired comparisons with full,
verdicts, cascades, and the accuracy that routing ranks by are shares of rows that are right. So a model whose answers
are no classes needs a rule that says when an answer is right, and its usual measures (R2, mean absolute error, mean
average precision) are reported beside that share, of the same answers::

    Classes             the largest score stands at the label
    Values(tolerance)   every value lies within ``tolerance`` of the label's
    Boxes(...)          the boxes that a picture is said to hold are those of its label: none missing, none too much

The tolerance is in the units of the answer, and is the recipe's to choose: what error would a user of the model not
mind? A tolerance near the typical error of the full model tells variants apart best; one far above it calls all right.

``divergence`` is how far one file's outputs lie from another's, without labels; quantization keeps it small. For
classes it is the mean Kullback-Leibler divergence in nats, for values the mean squared difference over the variance of
the reference, so that 0.01 means a hundredth of what there is to explain. For boxes it is taken place by place, before
anything is suppressed, with s the scores of the two and b their boxes::

    sum over places of (sum over classes |s - s'| + max s (1 - overlap of b and b')) / sum over places of max s

so that 0.01 means a hundredth of an object for each object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from variants.average_precision import LEAST_SCORE, mean_average_precision
from variants.boxes import (
    COORDINATES,
    OVERLAPS,
    are_same,
    as_labels,
    corners_of,
    disagreement,
    label_problem,
    overlaps,
    read_answers,
    read_labels,
)
from variants.drift_reference import ByBoxes, ByClass, ByValue
from variants.probabilities import as_logits, mean_kl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from variants.boxes import Found
    from variants.drift_reference import ScoringForm
    from variants.manifest import Task
    from variants.recipe import Floats, Labels

    Bools = NDArray[np.bool_]


class Scoring(Protocol):
    """Judges outputs, the first output of a file (rows, ...), row by row; ``task`` is the kind of model."""

    @property
    def task(self) -> Task:
        """The kind of model, as the manifest calls it."""
        ...

    @property
    def form(self) -> ScoringForm:
        """The same rule as the manifest has it."""
        ...

    def answer(self, outputs: Floats) -> Labels:
        """Return the labels (rows, ...) that would make these outputs right."""
        ...

    def problem(self, labels: Labels, names: tuple[str, ...]) -> str:
        """Return what is wrong with ``labels`` for a model whose classes are called ``names``, '' if nothing is."""
        ...

    def right(self, outputs: Floats, labels: Labels) -> Bools:
        """Return which rows (rows,) are right."""
        ...

    def same(self, outputs: Floats, others: Floats) -> Bools:
        """Return which rows (rows,) have the same answer in both."""
        ...

    def divergence(self, reference: Floats, outputs: Floats) -> float:
        """Return how far ``outputs`` lie from ``reference``; 0 if they are equal."""
        ...

    def beside(self, outputs: Floats, labels: Labels) -> dict[str, float]:
        """Return other measures of the same answers, by name."""
        ...


@dataclass(frozen=True, slots=True)
class Classes:
    """Outputs are one score for each class (rows, classes), logits or probabilities; labels are class numbers."""

    @property
    def task(self) -> Task:
        """The kind of model."""
        return "classification"

    @property
    def form(self) -> ScoringForm:
        """The rule for the manifest."""
        return ByClass()

    def answer(self, outputs: Floats) -> Labels:
        """Return the class of the largest score."""
        return np.asarray(outputs.argmax(1))

    def problem(self, labels: Labels, names: tuple[str, ...]) -> str:
        """Return what is wrong with ``labels``, '' if nothing is."""
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            return f"labels {labels.dtype}{list(labels.shape)}; expected one class number for each row"
        low, high = int(labels.min()), int(labels.max())
        allowed = len(names)
        return "" if 0 <= low <= high < allowed else f"labels {low}..{high}; {allowed} labels allow 0..{allowed - 1}"

    def right(self, outputs: Floats, labels: Labels) -> Bools:
        """Return which rows have their largest score at the label."""
        return np.asarray(outputs.argmax(1) == labels)

    def same(self, outputs: Floats, others: Floats) -> Bools:
        """Return which rows have their largest score at the same class."""
        return np.asarray(outputs.argmax(1) == others.argmax(1))

    def divergence(self, reference: Floats, outputs: Floats) -> float:
        """Return the mean Kullback-Leibler divergence, nats."""
        return mean_kl(as_logits(reference), as_logits(outputs))

    def beside(self, outputs: Floats, labels: Labels) -> dict[str, float]:  # noqa: ARG002 - the protocol's form
        """Return nothing: accuracy is the measure of classes."""
        return {}


@dataclass(frozen=True, slots=True)
class Values:
    """Outputs are values (rows, ...), and right within ``tolerance`` of the labels (rows, ...) or (rows,)."""

    tolerance: float

    @property
    def task(self) -> Task:
        """The kind of model."""
        return "regression"

    @property
    def form(self) -> ScoringForm:
        """The rule for the manifest."""
        return ByValue(tolerance=self.tolerance)

    def answer(self, outputs: Floats) -> Labels:
        """Return the values themselves."""
        return outputs

    def problem(self, labels: Labels, names: tuple[str, ...]) -> str:  # noqa: ARG002 - values have no classes
        """Return what is wrong with ``labels``, '' if nothing is."""
        if not np.issubdtype(labels.dtype, np.floating):
            return f"labels of type {labels.dtype}; expected floating-point numbers"
        missing = np.flatnonzero(~np.isfinite(labels).reshape(len(labels), -1).all(axis=1))
        return f"a label that is no finite number, at row {missing[0]}" if len(missing) else ""

    def right(self, outputs: Floats, labels: Labels) -> Bools:
        """Return which rows have no value farther than the tolerance from its label."""
        return self._near(outputs, labels)

    def same(self, outputs: Floats, others: Floats) -> Bools:
        """Return which rows have no value farther than the tolerance from the other file's."""
        return self._near(outputs, others)

    def divergence(self, reference: Floats, outputs: Floats) -> float:
        """Return the mean squared difference over the reference's variance."""
        return _squared_error(reference, outputs) / _variance(reference)

    def beside(self, outputs: Floats, labels: Labels) -> dict[str, float]:
        """Return the coefficient of determination, and the mean absolute and the root mean square error."""
        truth = labels.reshape(outputs.shape).astype(np.float64)
        squared = _squared_error(truth, outputs)
        return {
            "r2": 1.0 - squared / _variance(truth),
            "mean absolute error": float(np.abs(outputs - truth).mean()),
            "root mean square error": float(np.sqrt(squared)),
        }

    def _near(self, outputs: Floats, wanted: Labels) -> Bools:
        far = np.abs(outputs - wanted.reshape(outputs.shape)) > self.tolerance
        return np.asarray(~far.reshape(len(far), -1).any(axis=1))


@dataclass(frozen=True, slots=True)
class Boxes:
    """Outputs are (rows, 4 + classes, places), labels (rows, most, 5), as ``variants.boxes`` describes both.

    Boxes that score less than ``least_score`` are none, nor are those that a better one of their class overlaps by more
    than ``suppression``; a match overlaps by at least ``overlap``.
    """

    least_score: float = 0.25
    overlap: float = 0.5
    suppression: float = 0.45

    @property
    def task(self) -> Task:
        """The kind of model."""
        return "detection"

    @property
    def form(self) -> ScoringForm:
        """The rule for the manifest."""
        return ByBoxes(least_score=self.least_score, overlap=self.overlap, suppression=self.suppression)

    def answer(self, outputs: Floats) -> Labels:
        """Return the boxes that are seen, as labels."""
        return as_labels(self._read(outputs))

    def problem(self, labels: Labels, names: tuple[str, ...]) -> str:
        """Return what is wrong with ``labels``, '' if nothing is."""
        return label_problem(labels, len(names))

    def right(self, outputs: Floats, labels: Labels) -> Bools:
        """Return which pictures have all labelled boxes found and nothing besides."""
        return are_same(self._read(outputs), read_labels(labels), self.overlap)

    def same(self, outputs: Floats, others: Floats) -> Bools:
        """Return which pictures are said to have the same boxes."""
        return are_same(self._read(outputs), self._read(others), self.overlap)

    def divergence(self, reference: Floats, outputs: Floats) -> float:
        """Return the difference of scores and boxes for each object of the reference."""
        sure = reference[:, COORDINATES:].max(1)  # (rows, places)
        scores = np.abs(reference[:, COORDINATES:] - outputs[:, COORDINATES:]).sum(dtype=np.float64)
        boxes = [
            corners_of(item[:, :COORDINATES].transpose(0, 2, 1).reshape(-1, 1, 4)) for item in (reference, outputs)
        ]
        shared = overlaps(*boxes).reshape(sure.shape)
        seen = max(float(sure.sum(dtype=np.float64)), float(np.finfo(np.float32).tiny))
        return float((scores + (sure * (1.0 - shared)).sum(dtype=np.float64)) / seen)

    def disagreement(self, full: Floats, outputs: Floats) -> NDArray[np.float64]:
        """Return for each picture (rows,) what a variant's boxes lack of agreeing with full's, 0..1."""
        return disagreement(self._read(full), self._read(outputs))

    def beside(self, outputs: Floats, labels: Labels) -> dict[str, float]:
        """Return the mean average precision at an overlap of 0.5, and over 0.5 to 0.95."""
        found, wanted = read_answers(outputs, LEAST_SCORE, self.suppression), read_labels(labels)
        return {
            "mAP@0.5": mean_average_precision(found, wanted),
            "mAP@0.5:0.95": mean_average_precision(found, wanted, OVERLAPS),
        }

    def _read(self, outputs: Floats) -> Found:
        return read_answers(outputs, self.least_score, self.suppression)


CLASSES: Scoring = Classes()


def scoring_of(recipe: object) -> Scoring:
    """Return what a recipe counts as right; classes where it says nothing."""
    scoring: Scoring = getattr(recipe, "scoring", CLASSES)
    return scoring


def _squared_error(truth: Labels, outputs: Floats) -> float:
    return float(((outputs.astype(np.float64) - truth) ** 2).mean())


def _variance(values: Labels) -> float:
    """Return the variance over rows, averaged over places; never zero."""
    return max(float(values.astype(np.float64).var(axis=0).mean()), float(np.finfo(np.float64).tiny))
