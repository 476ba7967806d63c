"""Models as KServe's custom models: ``kserve_service.py HTTP_PORT GRPC_PORT NAME FILE [NAME FILE ...]``."""

from __future__ import annotations

import sys
from typing import Any

from compute import Compute
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class OnnxModel(Model):  # type: ignore[misc] # the package is not installed where types are checked
    """From ``x`` to ``y``, FP32, the batch first."""

    def __init__(self, name: str, file: str) -> None:
        super().__init__(name)
        self._compute = Compute(file)
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """Return the inputs as the protocol's metadata has them."""
        return [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """Return the outputs likewise."""
        return [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}]

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:  # noqa: ANN401, ARG002 - KServe's own
        """Run one request."""
        rows = self._compute(payload.inputs[0].as_numpy())
        output = InferOutput("y", list(rows.shape), "FP32")
        output.set_data_from_numpy(rows, binary_data=bool(payload.use_binary_outputs or payload.from_grpc))
        return InferResponse(payload.id or "", self.name, [output])


if __name__ == "__main__":
    http_port, grpc_port, *named = sys.argv[1:]
    models = [OnnxModel(name, file) for name, file in zip(named[::2], named[1::2], strict=True)]
    ModelServer(http_port=int(http_port), grpc_port=int(grpc_port)).start(models)
