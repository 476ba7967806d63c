"""Does a file say what the model says that it was made from?

Parity is measured on real rows, not on noise: the largest and the mean absolute difference of outputs, and the share
of rows with the same answer. Folding and fusion reorder sums, so float32 parity is about 1e-5, never zero; an error
above 1e-3 of a float file has always been a bug. Reduced precision changes outputs by its nature; there the answers
count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from variants.errors import BuildError
from variants.evidence import Parity
from variants.runtime import run_logits
from variants.sampling import sample_rows

if TYPE_CHECKING:
    from variants.recipe import Floats, Inputs
    from variants.scoring import Scoring

PARITY_ROWS: Final = 1000
"""Rows to compare: enough to see one disagreement in three hundred; a large test part would take minutes."""


def compare_outputs(expected: Floats, actual: Floats, scoring: Scoring) -> Parity:
    """Compare the outputs (rows, ...) of a model and of what was made from it.

    Raises:
        BuildError: The shapes differ, or an output is not a finite number.
    """
    if expected.shape != actual.shape:
        raise BuildError(f"outputs have shape {list(actual.shape)} where the model's have {list(expected.shape)}")
    error = np.abs(expected.astype(np.float64) - actual)
    if not np.isfinite(error).all():
        raise BuildError("the model's outputs are not finite numbers; if it was trained here, lower the learning rate")
    return Parity(
        rows=len(expected),
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        argmax_agreement=float(scoring.same(actual, expected).mean()),
    )


def parity_rows(inputs: Inputs) -> Inputs:
    """Return the rows of ``inputs`` (rows, ...) to compare on: a sample where there are more than a thousand."""
    return inputs[sample_rows(len(inputs), PARITY_ROWS)]


def compare_files(expected: bytes, actual: bytes, inputs: Inputs, scoring: Scoring) -> Parity:
    """Compare two ONNX files on up to a thousand of ``inputs`` (rows, ...): one, and what was made of it.

    Raises:
        BuildError: As ``compare_outputs``.
    """
    inputs = parity_rows(inputs)
    return compare_outputs(run_logits(expected, inputs), run_logits(actual, inputs), scoring)
