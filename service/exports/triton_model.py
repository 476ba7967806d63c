"""An ONNX file behind Triton's Python backend: what ``tiergate export --to triton --form python`` writes as model.py.

The requests of one dynamic batch run as one call of ONNX Runtime, on one thread: instances are the parallelism.
``triton_python_backend_utils`` is given by Triton itself; numpy and onnxruntime must be importable where it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """What Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the ONNX file beside this one."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; those of unlike shapes are run one by one."""
        feeds = [
            {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            for request in requests
        ]
        shapes = {tuple(feed[name].shape[1:] for name in self._inputs) for feed in feeds}
        if len(feeds) == 1 or len(shapes) > 1:
            return [self._answer(self._session.run(self._outputs, feed)) for feed in feeds]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}  # (rows, ...)
        ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])[:-1]
        outputs = [np.split(rows, ends) for rows in self._session.run(self._outputs, joined)]
        return [self._answer(parts) for parts in zip(*outputs, strict=True)]

    def _answer(self, outputs: Any) -> Any:  # noqa: ANN401 - arrays, and a type that only Triton has
        return triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(self._outputs, outputs, strict=True)])
