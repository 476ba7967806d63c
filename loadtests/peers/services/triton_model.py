"""The model in Triton's Python backend: the requests of one dynamic batch run as one runtime call.

A model's ``model.py`` imports this class; ``triton_python_backend_utils`` is given by Triton itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from compute import Compute


class TritonPythonModel:
    """What Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the ONNX file beside this one."""
        self._compute = Compute(str(Path(args["model_repository"]) / args["model_version"] / "model.onnx"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one batch, in order."""
        inputs = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        if len(inputs) == 1:
            return [self._answer(self._compute(inputs[0]))]
        outputs = self._compute(np.concatenate(inputs))
        ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return [self._answer(part) for part in np.split(outputs, ends)]

    @staticmethod
    def _answer(rows: np.ndarray[Any, Any]) -> Any:  # noqa: ANN401 - a type that only Triton has
        return triton.InferenceResponse([triton.Tensor("y", rows)])
