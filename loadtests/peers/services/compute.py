"""One runtime call, the same inside every peer: one thread, no spinning, as in the gateway's lanes.

Lies beside the peers' services, which import it as a module of its own: the project is not installed where they run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime as ort

if TYPE_CHECKING:
    import numpy as np


class Compute:
    """The model of one file, from ``x`` to its first output, both FP32 and with the batch first."""

    def __init__(self, file: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Run one batch."""
        output: np.ndarray[Any, Any] = self._session.run(None, {"x": rows})[0]
        return output
