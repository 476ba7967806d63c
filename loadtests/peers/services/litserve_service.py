"""The model as a LitServe API; run with the ONNX file and the port.

No ``from __future__ import annotations`` here: LitServe compares the annotations themselves. ``Request`` and
``Response`` are what it takes where there is none, and mean JSON that nothing checks: its fastest form.
"""

import sys
from typing import Any

import litserve
import numpy as np
from compute import Compute
from starlette.requests import Request
from starlette.responses import Response


class PeerApi(litserve.LitAPI):  # type: ignore[misc] # the package is not installed where types are checked
    """Answers a flat list with its shape, as it was asked."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        del device
        self._compute = Compute(sys.argv[1])

    def decode_request(self, request: Request) -> np.ndarray[Any, Any]:
        """Read the input; what comes is the document."""
        return np.array(request["data"], np.float32).reshape(request["shape"])

    def predict(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Run one request."""
        output: np.ndarray[Any, Any] = self._compute(x)
        return output

    def encode_response(self, output: np.ndarray[Any, Any]) -> Response:
        """Write the output, as a document."""
        document: Any = {"data": output.ravel().tolist(), "shape": list(output.shape)}
        answer: Response = document
        return answer


if __name__ == "__main__":
    server = litserve.LitServer(PeerApi(), accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error", access_log=False)
