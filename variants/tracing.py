"""From torch to one self-contained ONNX file.

The exporter traces the model with a symbolic batch dimension and folds batch norm into the convolutions, so that what
is quantized later is what will run. Traces of where the model came from (stack traces with file paths, inferred
shapes) are removed: they would make the bytes depend on the machine, and stale shapes have broken quantization.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

OPSET: Final = 18


def trace(model: torch.nn.Module, rows: Sequence[torch.Tensor], inputs: Sequence[str], output: str) -> bytes:
    """Return the model as ONNX bytes with a dynamic batch dimension; ``rows`` are two for each of ``inputs``.

    Traced with two rows, because a batch of one would be taken for a constant.
    """
    batch = torch.export.Dim("batch")
    with _quiet_exporter():
        program = torch.onnx.export(
            model.eval(),
            tuple(rows),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple({0: batch} for _ in rows),
            verbose=False,
        )
    assert program is not None  # noqa: S101 - the exporter returns a program when given no file
    data: bytes = _strip(program.model_proto).SerializeToString(deterministic=True)
    return data


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
            warnings.filterwarnings("ignore", ".*The axis name: batch will not be used", UserWarning)  # named once
            yield
    finally:
        logger.setLevel(level)
