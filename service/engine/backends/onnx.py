"""ONNX Runtime on the CPU, one thread per run: the lanes are the parallelism."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from service.domain.errors import BackendFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from service.domain.tensors import TensorSpec
    from service.engine.backends.backend import Stop

_ONNX_TYPES: Final = {
    "BOOL": "tensor(bool)",
    "UINT8": "tensor(uint8)",
    "UINT16": "tensor(uint16)",
    "UINT32": "tensor(uint32)",
    "UINT64": "tensor(uint64)",
    "INT8": "tensor(int8)",
    "INT16": "tensor(int16)",
    "INT32": "tensor(int32)",
    "INT64": "tensor(int64)",
    "FP16": "tensor(float16)",
    "FP32": "tensor(float)",
    "FP64": "tensor(double)",
    "BF16": "tensor(bfloat16)",
    "BYTES": "tensor(string)",
}
_BFLOAT16: Final = 16
"""ONNX's element type number; numpy has none to ask for."""

ALLOWED_OPTIONS: Final = frozenset(
    {"session.x64quantprecision", "session.disable_prepacking", "session.use_env_allocators"}
)
"""Session options that a manifest may ask for; others could name files or libraries."""


class OnnxBackend:
    """One session, shared by the lanes; ONNX Runtime allows concurrent runs. Who read the file says ``is_steady``."""

    is_steady = False

    def __init__(
        self,
        model: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        options: Mapping[str, str],
    ) -> None:
        """Load a model from memory.

        Raises:
            BackendFailed: The runtime refuses it, its interface is not the declared one, or an option is not allowed.
        """
        unknown = sorted(set(options) - ALLOWED_OPTIONS)
        if unknown:
            raise BackendFailed(
                f"session option {', '.join(unknown)} is not allowed; allowed are {', '.join(sorted(ALLOWED_OPTIONS))}"
            )
        try:
            self._session = ort.InferenceSession(
                model, _session_options(options), providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # the runtime raises a family of classes that share no public base
            raise BackendFailed(f"the runtime refuses the model: {_first_line(error)}") from error
        # The session keeps the file to start over on another provider, which is off: the weights a second time.
        self._session._model_bytes = None  # noqa: SLF001 - there is no public way
        self._output_names = [spec.name for spec in outputs]
        self._strings_in = [spec.name for spec in inputs if spec.datatype == "BYTES"]
        self._bfloat16_in = [spec.name for spec in inputs if spec.datatype == "BF16"]
        _check_interface("input", self._session.get_inputs(), inputs)
        _check_interface("output", self._session.get_outputs(), outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
        """Compute one batch; a run that is broken off ends between two nodes of the graph.

        Raises:
            BackendFailed: The runtime failed, or the run was broken off.
        """
        feed: Mapping[str, Any] = inputs
        try:
            if self._strings_in or self._bfloat16_in:
                feed = self._feed(inputs)
            outputs = self._session.run(self._output_names, feed, None if stop is None else _options(stop))
        except Exception as error:
            raise BackendFailed(f"the runtime failed: {_first_line(error)}") from error
        return tuple(_as_bytes(item) if item.dtype == np.object_ else item for item in outputs)

    def _feed(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        feed: dict[str, Any] = dict(inputs)
        for name in self._strings_in:
            texts = [item.decode("utf-8") for item in inputs[name].ravel()]
            feed[name] = np.array(texts, dtype=np.object_).reshape(inputs[name].shape)
        for name in self._bfloat16_in:
            feed[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(inputs[name], _BFLOAT16)
        return feed


def _options(stop: Stop) -> ort.RunOptions:
    result = ort.RunOptions()
    stop.use(partial(setattr, result, "terminate", True))  # which keeps the options for as long as it may be called
    return result


def _session_options(options: Mapping[str, str]) -> ort.SessionOptions:
    result = ort.SessionOptions()
    result.intra_op_num_threads = 1
    result.inter_op_num_threads = 1
    result.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    result.log_severity_level = 4
    result.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in options.items():
        result.add_session_config_entry(name, value)
    return result


def _check_interface(kind: str, nodes: Sequence[Any], specs: Sequence[TensorSpec]) -> None:
    found = {node.name: node.type for node in nodes}
    wanted = {spec.name: _ONNX_TYPES[spec.datatype] for spec in specs}
    if found != wanted:
        raise BackendFailed(f"the file's {kind}s are {found}; the manifest declares {wanted}")


def _as_bytes(texts: NDArray[Any]) -> NDArray[Any]:
    result = np.empty(texts.size, dtype=np.object_)
    result[:] = [item.encode("utf-8") if isinstance(item, str) else item for item in texts.ravel()]
    return result.reshape(texts.shape)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
