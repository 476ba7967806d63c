"""What a right answer is, for each kind of model.

Everything that is proven of variants is proven of a 0/1 score of each row: intervals, paired comparisons with full,
verdicts, cascades, and the accuracy that routing ranks by are shares of rows that are right. So a model whose answers
are no classes needs a rule that says when an answer is right, and its usual measures (R2, mean absolute error, mean
average precision) are reported beside that share, of the same answers::

    Classes             the largest score stands at the label
    Values(tolerance)   every value lies within ``tolerance`` of the label's

The tolerance is in the units of the answer, and is the recipe's to choose: what error would a user of the model not
mind? A tolerance near the typical error of the full model tells variants apart best; one far above it calls all right.

``divergence`` is how far one file's outputs lie from another's, without labels; quantization keeps it small. For
classes it is the mean Kullback-Leibler divergence in nats, for values the mean squared difference over the variance of
the reference, so that 0.01 means a hundredth of what there is to explain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from variants.probabilities import as_logits, mean_kl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from variants.manifest import Task
    from variants.recipe import Floats, Labels

    Bools = NDArray[np.bool_]


class Scoring(Protocol):
    """Judges outputs, the first output of a file (rows, ...), row by row; ``task`` is the kind of model."""

    @property
    def task(self) -> Task:
        """The kind of model, as the manifest calls it."""
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
