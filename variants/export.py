"""From torch to one self-contained ONNX file, and the proof that both say the same.

The exporter traces the model with a symbolic batch dimension and folds batch norm into the convolutions, so that what
is quantized later is what will run. Traces of where the model came from (stack traces with file paths, inferred
shapes) are removed: they would make the bytes depend on the machine, and stale shapes have broken quantization.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from variants.errors import BuildError
from variants.parity import PARITY_ROWS, compare_outputs
from variants.runtime import run_logits
from variants.scoring import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from variants.evidence import Parity
    from variants.recipe import Inputs, Taught
    from variants.scoring import Scoring

OPSET: Final = 18


def export_onnx(model: torch.nn.Module, recipe: Taught, example: Inputs) -> bytes:
    """Return the model as ONNX bytes with a dynamic batch dimension; ``example`` is (2 or more, ...).

    Traced with two rows, because a batch of one would be taken for a constant.
    """
    rows = torch.from_numpy(example[:2])  # (2, ...)
    with _quiet_exporter():
        program = torch.onnx.export(
            model.eval(),
            (rows,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[recipe.input_name],
            output_names=[recipe.output_name],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None  # noqa: S101 - the exporter returns a program when given no file
    data: bytes = _strip(program.model_proto).SerializeToString(deterministic=True)
    return data


def measure_parity(model: torch.nn.Module, file: bytes, inputs: Inputs, scoring: Scoring = CLASSES) -> Parity:
    """Compare the torch model and the ONNX file on the first thousand of ``inputs`` (rows, ...).

    Raises:
        BuildError: An output is not a finite number, as after a training that diverged.
    """
    inputs = inputs[:PARITY_ROWS]
    with torch.inference_mode():
        expected = model(torch.from_numpy(inputs)).numpy()  # (rows, ...)
    actual = run_logits(file, inputs)  # (rows, ...)
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        raise BuildError("the model's outputs are not finite numbers; its training diverged: lower the learning rate")
    return compare_outputs(expected, actual, scoring)


def _strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove everything that does not compute."""
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    graph = model.graph
    graph.ClearField("value_info")
    graph.ClearField("metadata_props")
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's talk of torch's own deprecations and of a torchvision that is not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
