"""What an ONNX file takes and gives, as the manifest declares it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import onnx

from variants.manifest import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

DATATYPES: Final[dict[int, str]] = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.STRING: "BYTES",
}
"""The wire's name for each of ONNX's element types."""


def describe_interface(file: bytes) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the inputs and the outputs of a file; the first dimension is the batch, an unknown one is -1."""
    graph = onnx.load_from_string(file).graph
    return tuple(map(_describe, graph_inputs(graph))), tuple(map(_describe, graph.output))


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller gives; old files list their weights among the inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _describe(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    datatype: Any = DATATYPES[kind.elem_type]
    return TensorInfo(name=value.name, datatype=datatype, shape=(-1, *_sizes(kind.shape.dim[1:])))


def _sizes(dims: Sequence[onnx.TensorShapeProto.Dimension]) -> tuple[int, ...]:
    return tuple(dim.dim_value if dim.dim_value > 0 else -1 for dim in dims)
