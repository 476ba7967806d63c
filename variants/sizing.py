"""How big an ONNX file is: parameters, multiply-accumulates, bytes.

Parameters are the elements of initializers that take part in computing; scales and zero points of quantization,
shapes and axes (int64), and lone constants are left out. A multiply-accumulate is counted for every product that a
Conv, Gemm or MatMul needs for ONE row, from inferred shapes::

    Conv    output elements * (input channels / groups) * kernel elements
    Gemm    rows * outputs * inputs
    MatMul  output elements * inner dimension

Additions, activations and normalisation are not counted, as is the custom; they are why time falls less than this
number does.
"""

from __future__ import annotations

import zlib
from collections import Counter
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from variants.evidence import Size

if TYPE_CHECKING:
    from collections.abc import Mapping

Shapes = dict[str, tuple[int, ...]]


def measure_size(file: bytes) -> Size:
    """Return every size of an ONNX file given as bytes."""
    model = onnx.load_from_string(file)
    weights = _weights(model.graph)
    weight_bytes: Counter[str] = Counter()
    for tensor in weights:
        array = numpy_helper.to_array(tensor)
        weight_bytes[onnx.TensorProto.DataType.Name(tensor.data_type)] += array.nbytes
    return Size(
        parameters=sum(prod(tensor.dims) for tensor in weights),
        nonzero_parameters=sum(int(np.count_nonzero(numpy_helper.to_array(tensor))) for tensor in weights),
        macs=count_macs(model),
        weight_bytes=dict(sorted(weight_bytes.items())),
        file_bytes=len(file),
        compressed_bytes=len(zlib.compress(file, 9)),
    )


def count_macs(model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates that one row takes."""
    shapes = _infer_shapes(model)
    return sum(_node_macs(node, shapes) for node in model.graph.node)


def _weights(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    scales = {
        name for node in graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"} for name in node.input[1:]
    }
    return [
        tensor
        for tensor in graph.initializer
        if tensor.name not in scales and tensor.dims and tensor.data_type != onnx.TensorProto.INT64
    ]


def _infer_shapes(model: onnx.ModelProto) -> Shapes:
    """Return every tensor's shape for a batch of one row."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in single.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    single.graph.ClearField("value_info")
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes: Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return shapes


def _node_macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":
        kernel = shapes[node.input[1]]  # (outputs, inputs / groups, *kernel)
        return prod(shapes[node.output[0]]) * prod(kernel[1:])
    if node.op_type == "Gemm":
        left, transposed = shapes[node.input[0]], any(a.name == "transA" and a.i for a in node.attribute)
        return prod(shapes[node.output[0]]) * left[0 if transposed else 1]
    if node.op_type == "MatMul":
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0
