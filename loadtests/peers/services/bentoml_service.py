"""The model as a BentoML service of BentoML's own form."""

from __future__ import annotations

import os
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import DType
from compute import Compute

# BentoML takes the type of an array without parameters.
Rows = Annotated[np.ndarray, DType("float32")]


@bentoml.service(name="peer", workers=1, logging={"access": {"enabled": False}})
class PeerService:
    """Serves the file that ``PEER_MODEL`` names."""

    def __init__(self) -> None:
        self._compute = Compute(os.environ["PEER_MODEL"])

    @bentoml.api  # type: ignore[untyped-decorator] # BentoML ships no types
    def infer(self, x: Rows) -> Rows:
        """Run one request."""
        output: np.ndarray[Any, Any] = self._compute(x)
        return output
