"""From torch to one ONNX file, and the proof that both say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from variants.errors import BuildError
from variants.parity import compare_outputs, parity_rows
from variants.runtime import run_logits
from variants.scoring import CLASSES
from variants.tracing import trace

if TYPE_CHECKING:
    from variants.evidence import Parity
    from variants.recipe import Inputs, Taught
    from variants.scoring import Scoring


def export_onnx(model: torch.nn.Module, recipe: Taught, example: Inputs) -> bytes:
    """Return the model as ONNX bytes with a dynamic batch dimension; ``example`` is (2 or more, ...)."""
    return trace(model, [torch.from_numpy(example[:2])], [recipe.input_name], recipe.output_name)


def measure_parity(model: torch.nn.Module, file: bytes, inputs: Inputs, scoring: Scoring = CLASSES) -> Parity:
    """Compare the torch model and the ONNX file on up to a thousand of ``inputs`` (rows, ...).

    Raises:
        BuildError: An output is not a finite number, as after a training that diverged.
    """
    inputs = parity_rows(inputs)
    with torch.inference_mode():
        expected = model(torch.from_numpy(inputs)).numpy()  # (rows, ...)
    actual = run_logits(file, inputs)  # (rows, ...)
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        raise BuildError("the model's outputs are not finite numbers; its training diverged: lower the learning rate")
    return compare_outputs(expected, actual, scoring)
