"""How big an ONNX file is: parameters, multiply-accumulates, bytes.

Parameters are the elements of initializers that take part in computing; scales and zero points of quantization,
shapes and axes (int64), and lone constants are left out. A multiply-accumulate is counted for every product that a
Conv, Gemm or MatMul needs for ONE row, from inferred shapes::

    Conv    output elements * (input channels / groups) * kernel elements
    Gemm    rows * outputs * inputs
    MatMul  output elements * inner dimension

and likewise for their integer forms. Additions, activations and normalisation are not counted, as is the custom; they
are why time falls less than this number does. A product of a shape that inference cannot tell counts nothing.

Trees keep their numbers in attributes of a node instead: thresholds of inner nodes and values of leaves are what they
have learned, so they count as parameters; comparisons are no multiplications, so trees have none.
"""

from __future__ import annotations

import zlib
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

from variants.evidence import Size
from variants.interface import graph_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

BYTES_OF_FLOAT: Final = 4
FOUR_BITS: Final = "MatMulNBits"

Shapes = dict[str, tuple[int, ...]]


def measure_size(file: bytes) -> Size:
    """Return every size of an ONNX file given as bytes."""
    model = onnx.load_from_string(file)
    weights = _weights(model.graph)
    trees = _tree_values(model.graph)
    weight_bytes: Counter[str] = Counter()
    for tensor in weights:
        array = numpy_helper.to_array(tensor)
        weight_bytes[onnx.TensorProto.DataType.Name(tensor.data_type)] += array.nbytes
    if trees:
        weight_bytes["FLOAT"] += BYTES_OF_FLOAT * len(trees)
    nonzero = sum(int(np.count_nonzero(numpy_helper.to_array(tensor))) for tensor in weights)
    halves = {node.input[1] for node in model.graph.node if node.op_type == FOUR_BITS}  # two weights in a byte
    return Size(
        parameters=sum(prod(tensor.dims) * (1 + (tensor.name in halves)) for tensor in weights) + len(trees),
        nonzero_parameters=nonzero + sum(value != 0.0 for value in trees),
        macs=count_macs(model),
        weight_bytes=dict(sorted(weight_bytes.items())),
        file_bytes=len(file),
        compressed_bytes=len(zlib.compress(file, 9)),
    )


def count_macs(model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates that one row takes."""
    unpacked = _unpack_products(model)
    shapes = infer_shapes(unpacked)
    return sum(node_macs(node, shapes) for node in unpacked.graph.node)


def _weights(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    scales = {
        name for node in graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"} for name in node.input[1:]
    }
    return [
        tensor
        for tensor in graph.initializer
        if tensor.name not in scales and tensor.dims and tensor.data_type != onnx.TensorProto.INT64
    ]


def _tree_values(graph: onnx.GraphProto) -> list[float]:
    """Return the thresholds and leaf values of every ensemble of trees."""
    kept = {"nodes_values", "class_weights", "target_weights"}
    return [
        value
        for node in graph.node
        if node.op_type.startswith("TreeEnsemble")
        for attribute in node.attribute
        if attribute.name in kept
        for value in attribute.floats
    ]


def _unpack_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with every product of 4-bit weights as a plain one, whose shapes inference can tell."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        if node.op_type == FOUR_BITS:
            sizes = {item.name: item.i for item in node.attribute}
            weight = onnx.TensorProto(name=f"{node.output[0]}_weight", dims=[sizes["K"], sizes["N"]])
            weight.data_type, weight.raw_data = onnx.TensorProto.INT8, bytes(sizes["K"] * sizes["N"])
            plain.graph.initializer.append(weight)
            node.CopyFrom(onnx.helper.make_node("MatMul", [node.input[0], weight.name], node.output))
    return plain


def infer_shapes(model: onnx.ModelProto, rows: int = 1) -> Shapes:
    """Return every tensor's shape for a batch of ``rows``."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in graph_inputs(single.graph):
        value.type.tensor_type.shape.dim[0].dim_value = rows
    single.graph.ClearField("value_info")
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes: Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if not value.type.tensor_type.HasField("shape"):
            continue
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return shapes


def node_macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the multiply-accumulates of one node for one row; none where a shape is unknown."""
    if not all(shapes.get(name) for name in (*node.input[:2], node.output[0])):
        return 0
    if node.op_type in {"Conv", "ConvInteger"}:
        kernel = shapes[node.input[1]]  # (outputs, inputs / groups, *kernel)
        return prod(shapes[node.output[0]]) * prod(kernel[1:])
    if node.op_type == "Gemm":
        left, transposed = shapes[node.input[0]], any(a.name == "transA" and a.i for a in node.attribute)
        return prod(shapes[node.output[0]]) * left[0 if transposed else 1]
    if node.op_type in {"MatMul", "MatMulInteger"}:
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0
