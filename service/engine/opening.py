"""From a file on disk to a backend that is verified, loaded and warm."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.domain.errors import BackendFailed
from service.domain.tensors import DTYPES
from service.engine.backends.onnx import OnnxBackend
from service.engine.onnx_guard import refuse_outside_references
from service.engine.repository import StoredFile, StoredModel, read_onnx
from service.policy.memory import Holdable

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from service.domain.tensors import TensorSpec
    from service.domain.variants import ModelInfo, Variant
    from service.engine.backends.backend import Backend
    from variants.manifest import VariantManifest

WARM_UP_RUNS: Final = 30
_WARM_UP_MOST_S: Final = 0.5
_DEPENDING_ON_DATA: Final = frozenset({"Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "Unique"})
"""Operators whose work, or that of what follows them, depends on the values that come in."""

OpenVariant = Callable[["StoredModel", "ModelInfo", "VariantManifest"], "tuple[Backend, StoredFile]"]
"""Reads, verifies and loads one variant."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where one variant of one loaded model comes from: what it takes to load it, again and again."""

    stored: StoredModel
    info: ModelInfo
    manifest: VariantManifest

    @property
    def variant(self) -> Variant:
        """The variant as routing sees it."""
        return next(item for item in self.info.variants if item.name == self.manifest.name)

    @property
    def weights(self) -> Hashable:
        """What is equal for variants that one loaded copy can answer for: bytes, options and interface."""
        options = tuple(sorted(self.manifest.hardware.session_options.items()))
        return self.manifest.sha256, options, self.info.inputs, self.info.outputs

    def holdable(self, allowed: Collection[str] = ()) -> Holdable:
        """Return the variant as the memory policy sees it; ``allowed`` are those that routing may choose, empty all."""
        variant = self.variant
        return Holdable(
            model=self.info.name,
            variant=variant.name,
            weights=self.weights,
            size_bytes=variant.memory_bytes,
            accuracy=variant.accuracy,
            compute_s=variant.profile.at(1).p50_s if variant.profile.cells else math.inf,
            is_routable=variant.is_routable and (not allowed or variant.name in allowed),
        )


def open_onnx_variant(stored: StoredModel, info: ModelInfo, variant: VariantManifest) -> tuple[Backend, StoredFile]:
    """Read, verify and load one variant.

    Raises:
        BackendFailed: Its file is not what the manifest says, reaches outside itself, or the runtime refuses it.
    """
    content, file, operators = _read_checked(stored, variant)
    backend = OnnxBackend(content, info.inputs, info.outputs, variant.hardware.session_options)
    backend.is_steady = operators.isdisjoint(_DEPENDING_ON_DATA)
    return backend, file


def verify(source: Source) -> StoredFile:
    """Check a variant's file as if to load it, and return where it lies.

    Raises:
        BackendFailed: Its file is not what the manifest says, or reaches outside itself.
    """
    return _read_checked(source.stored, source.manifest)[1]


def warm_up(backend: Backend, source: Source, runs: int = WARM_UP_RUNS) -> float:
    """Run a variant on made-up rows until it is warm; return its time on this machine over its profile's median."""
    inputs = blank_inputs(source.info)
    times: list[float] = []
    end_s = time.perf_counter() + _WARM_UP_MOST_S
    while len(times) < runs and (not times or time.perf_counter() < end_s):
        start_s = time.perf_counter()
        backend.run(inputs)
        times.append(time.perf_counter() - start_s)
    return statistics.median(times[len(times) // 3 :]) / max(source.variant.profile.at(1).p50_s, 1e-9)


def blank_inputs(info: ModelInfo, rows: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    """Return made-up rows of every input: zeros, and 1 for every dimension that is open."""
    return {spec.name: _blank(spec, rows) for spec in info.inputs}


def _read_checked(stored: StoredModel, variant: VariantManifest) -> tuple[bytes, StoredFile, frozenset[str]]:
    if not any(row.threads == 1 for row in variant.latency.rows):
        raise BackendFailed("the manifest has no latency measured with one thread")
    content, file = read_onnx(stored.folder, variant)
    return content, file, refuse_outside_references(content)


def _blank(spec: TensorSpec, rows: int) -> np.ndarray[Any, Any]:
    shape = [rows, *(1 if dim < 0 else dim for dim in spec.shape[1:])]
    if spec.datatype == "BYTES":
        return np.full(shape, b"", dtype=np.object_)
    return np.zeros(shape, dtype=DTYPES[spec.datatype])
