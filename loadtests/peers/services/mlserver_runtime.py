"""The model as an MLServer runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compute import Compute
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

if TYPE_CHECKING:
    from mlserver.types import InferenceRequest


class Runtime(MLModel):  # type: ignore[misc] # the package is not installed where types are checked
    """Loads the ONNX file that the model's settings name."""

    async def load(self) -> bool:
        """Load the model."""
        self._compute = Compute(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one request, or one batch of MLServer's making."""
        rows: Any = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("y", self._compute(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])
