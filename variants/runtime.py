"""Run an ONNX file the way the gateway's lanes do: on the CPU, sequentially, with no spinning threads.

Rows are an array (rows, ...) for a file with one input, and a structured array with a field of the input's name for
each input of a file with several: so that rows are counted, cut and hashed alike everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from variants.recipe import Floats, Inputs

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


def blank(wanted: Any, rows: int = 1) -> Inputs:  # noqa: ANN401 - onnxruntime ships no types
    """Return rows of zeros for an input. They will do: memory and time of most operators do not depend on values."""
    element = wanted.type.removeprefix("tensor(").removesuffix(")")
    return np.zeros([rows, *wanted.shape[1:]], dtype={"float": "float32", "double": "float64"}.get(element, element))


def feed_of(name: str, inputs: Inputs) -> dict[str, Inputs]:
    """Return what a session takes for these rows; ``name`` is its first input's."""
    fields = inputs.dtype.names
    return {name: inputs} if fields is None else {field: np.ascontiguousarray(inputs[field]) for field in fields}


def run_logits(source: bytes | Path, inputs: Inputs) -> Floats:
    """Return the first output (rows, ...) for ``inputs`` (rows, ...), in batches."""
    return run_session(open_session(source), inputs)


def run_session(session: Any, inputs: Inputs) -> Floats:  # noqa: ANN401 - onnxruntime ships no types
    """Return the session's first output (rows, ...) for ``inputs`` (rows, ...), in batches."""
    name = session.get_inputs()[0].name
    batches = [inputs[start : start + ROWS_AT_ONCE] for start in range(0, len(inputs), ROWS_AT_ONCE)]
    return np.concatenate([session.run(None, feed_of(name, batch))[0] for batch in batches])
