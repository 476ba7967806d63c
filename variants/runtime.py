"""Run an ONNX file the way the gateway's lanes do: on the CPU, sequentially, with no spinning threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from variants.recipe import Floats

ROWS_AT_ONCE: Final = 64
SPINNING: Final = "session.intra_op.allow_spinning"


def open_session(source: bytes | Path, threads: int = 1) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Return an onnxruntime session of a file or of its bytes, with ``threads`` threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry(SPINNING, "0")
    options.log_severity_level = 3
    model = source if isinstance(source, bytes) else str(source)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_logits(source: bytes | Path, inputs: Floats) -> Floats:
    """Return the first output (rows, classes) for ``inputs`` (rows, ...), in batches."""
    session = open_session(source)
    name = session.get_inputs()[0].name
    batches = [inputs[start : start + ROWS_AT_ONCE] for start in range(0, len(inputs), ROWS_AT_ONCE)]
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
