"""A backend that computes nothing real: for tests and for measuring the gateway itself."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from service.domain.errors import BackendFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from service.engine.backends.backend import Stop


class StubBackend:
    """Answers ``scale`` times the sum of each row, after ``compute_s`` seconds, when ``gate`` is open.

    Set ``fails`` to make every run raise, ``gate`` to hold runs until a test lets them go. One that was asked to stop
    stops when it has computed.
    """

    def __init__(self, scale: float = 1.0, compute_s: float = 0.0) -> None:
        """Keep the settings; the gate starts open."""
        self.scale = scale
        self.is_steady = True
        self.compute_s = compute_s
        self.fails: Callable[[Mapping[str, NDArray[Any]]], bool] | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []

    def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
        """Compute ``scale * sum`` for each row.

        Raises:
            BackendFailed: ``fails`` says so, or the run was broken off.
        """
        data = next(iter(inputs.values()))
        self.batches.append(len(data))
        self.gate.wait()
        if self.compute_s:
            time.sleep(self.compute_s)
        if self.fails is not None and self.fails(inputs):
            raise BackendFailed("the stub was told to fail")
        if stop is not None and stop.is_set:
            raise BackendFailed("the stub was told to stop")
        sums = data.reshape(len(data), -1).sum(axis=1, keepdims=True, dtype=np.float32)
        return (np.float32(self.scale) * sums,)
