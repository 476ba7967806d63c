"""What each ONNX operator does to axes: which of those that it reads and gives are one dimension.

A rule yields links; an axis that it does not name is one that the operator mixes, or that a change of size would break.
Operators without a rule here are not understood, which is always safe: what they touch is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx

    Rule = Callable[["onnx.NodeProto", "Graph"], Iterator["Link"]]

Units = NDArray[np.int64]
"""Numbers of units of a group, or of places on an axis, in order."""
Axis = tuple[str, int]
"""A tensor's name and the number of one of its axes, from 0."""


@dataclass(frozen=True, slots=True)
class Link:
    """The second axis has the units of the first, each as a block of ``inner``."""

    first: Axis
    second: Axis
    inner: int = 1


class Graph(Protocol):
    """What rules ask of the graph: shapes for a batch that no other axis is as long as, and what is frozen so far."""

    @property
    def model(self) -> onnx.ModelProto:
        """The model."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape, 0 where it is not known."""
        ...

    def is_free(self, axis: Axis) -> bool:
        """Tell whether nothing is known that keeps the axis as it is."""
        ...


def domain_of(node: onnx.NodeProto) -> str:
    """Return the operator's domain, '' for ONNX's own."""
    return "" if node.domain == "ai.onnx" else str(node.domain)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def constant(graph: Graph, name: str) -> list[int] | None:
    """Return a weight's numbers, ``None`` if it is computed."""
    found = next((tensor for tensor in graph.model.graph.initializer if tensor.name == name), None)
    return None if found is None else [int(value) for value in numpy_helper.to_array(found).ravel()]


def _broadcast(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    """Elementwise, by numpy's rules: axes are matched from the last; one of size 1 stands for all."""
    output = node.output[0]
    rank = len(graph.shapes[output])
    for name in filter(None, node.input):
        shape = graph.shapes[name]
        for axis, size in enumerate(shape):
            into = rank - len(shape) + axis
            if size == graph.shapes[output][into]:
                yield Link((name, axis), (output, into))


def _same(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    """Each element for itself; further inputs are settings."""
    for axis in range(len(graph.shapes[node.input[0]])):
        yield from (Link((node.input[0], axis), (output, axis)) for output in filter(None, node.output[:1]))


def _along(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    """Mixed along ``axis`` (for a layer norm from it on), each element for itself elsewhere."""
    rank = len(graph.shapes[node.input[0]])
    axis = attributes(node).get("axis", -1) % rank
    mixed = range(axis, rank) if node.op_type == "LayerNormalization" else (axis,)
    yield from (Link((node.input[0], at), (node.output[0], at)) for at in range(rank) if at not in mixed)


def _leading(node: onnx.NodeProto, _: Graph) -> Iterator[Link]:
    """Rows and channels are kept; places are pooled, or scaled with one number for each channel."""
    yield from (Link((node.input[0], axis), (node.output[0], axis)) for axis in (0, 1))
    yield from (Link((node.input[0], 1), (name, 0)) for name in filter(None, node.input[1:]))


def _conv(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    data, weight, output = node.input[0], node.input[1], node.output[0]
    outputs, inner = graph.shapes[weight][:2]
    groups = attributes(node).get("group", 1)
    yield Link((data, 0), (output, 0))
    if groups == 1:
        yield Link((data, 1), (weight, 1))
    elif groups == outputs and inner == 1:
        yield Link((data, 1), (weight, 0))
    else:
        return
    yield Link((weight, 0), (output, 1))
    yield from (Link((weight, 0), (bias, 0)) for bias in node.input[2:] if bias)


def _gemm(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    settings, (data, weight), output = attributes(node), node.input[:2], node.output[0]
    if settings.get("transA"):
        return
    outputs = 0 if settings.get("transB") else 1
    yield Link((data, 0), (output, 0))
    yield Link((data, 1), (weight, 1 - outputs))
    yield Link((weight, outputs), (output, 1))
    for bias in filter(None, node.input[2:]):
        shape = graph.shapes[bias]
        if shape and shape[-1] == graph.shapes[output][1]:
            yield Link((weight, outputs), (bias, len(shape) - 1))


def _matmul(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    (left, right), output = node.input[:2], node.output[0]
    ranks = len(graph.shapes[left]), len(graph.shapes[right])
    if min(ranks) == 1:
        return
    rank = len(graph.shapes[output])
    yield Link((left, ranks[0] - 1), (right, ranks[1] - 2))
    yield Link((left, ranks[0] - 2), (output, rank - 2))
    yield Link((right, ranks[1] - 1), (output, rank - 1))
    for name, own in zip((left, right), ranks, strict=True):
        for axis in range(own - 2):
            if graph.shapes[name][axis] == graph.shapes[output][rank - own + axis]:
                yield Link((name, axis), (output, rank - own + axis))


def _transpose(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    rank = len(graph.shapes[node.input[0]])
    order = attributes(node).get("perm", range(rank)[::-1])
    yield from (Link((node.input[0], into), (node.output[0], axis)) for axis, into in enumerate(order))


def _reduce(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    """All axes but those reduced over, which newer files give as an input."""
    settings, rank = attributes(node), len(graph.shapes[node.input[0]])
    axes = settings.get("axes")
    if axes is None and len(node.input) > 1:
        axes = constant(graph, node.input[1])
    if axes:
        gone = {axis % rank for axis in axes}
        kept = range(rank) if settings.get("keepdims", 1) else [axis for axis in range(rank) if axis not in gone]
        yield from (Link((node.input[0], at), (node.output[0], i)) for i, at in enumerate(kept) if at not in gone)


def _gather(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    """All axes but the one that is chosen from: a table's columns, a sequence's features."""
    data, indices, output = node.input[0], node.input[1], node.output[0]
    rank, more = len(graph.shapes[data]), len(graph.shapes[indices])
    axis = attributes(node).get("axis", 0) % rank
    yield from (Link((data, at), (output, at)) for at in range(axis))
    yield from (Link((indices, at), (output, axis + at)) for at in range(more))
    yield from (Link((data, at), (output, at - 1 + more)) for at in range(axis + 1, rank))


def _slice(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    axes = constant(graph, node.input[3]) if len(node.input) > 3 and node.input[3] else None  # noqa: PLR2004 - its place
    rank = len(graph.shapes[node.input[0]])
    cut = range(rank) if axes is None else [axis % rank for axis in axes]
    yield from (Link((node.input[0], at), (node.output[0], at)) for at in range(rank) if at not in cut)


def _concat(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    rank = len(graph.shapes[node.output[0]])
    axis = attributes(node)["axis"] % rank
    for name in node.input:
        yield from (Link((name, at), (node.output[0], at)) for at in range(rank) if at != axis)


def _reshape(node: onnx.NodeProto, graph: Graph) -> Iterator[Link]:
    """Axes that stay one; the channels of axes that become one; the first of two that one becomes."""
    data, output = node.input[0], node.output[0]
    target = None
    if node.op_type == "Reshape":
        target = constant(graph, node.input[1])
        if target is None:
            return
    for before, after in _blocks(graph.shapes[data], graph.shapes[output]):
        if len(after) == 1 and len(before) >= 1:
            free = [axis for axis in before if graph.is_free((data, axis))]
            if len(free) == 1:
                yield from _merge(graph, (data, free[0]), (output, after[0]), before)
        elif len(before) == 1 and graph.is_free((data, before[0])):
            inner = prod(graph.shapes[output][axis] for axis in after[1:])
            yield Link((output, after[0]), (data, before[0]), inner)


def _merge(graph: Graph, first: Axis, second: Axis, before: list[int]) -> Iterator[Link]:
    """Only the first of several that become one is a block of the others; NHWC's last axis is not."""
    name, axis = first
    if axis == before[0]:
        yield Link(first, second, prod(graph.shapes[name][other] for other in before[1:]))


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the smallest runs of axes of the same product, without those of size 1; none if a size is not known."""
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    if prod(before) != prod(after) or not prod(before):
        return
    while left and right:
        ours, theirs = [left.pop(0)], [right.pop(0)]
        while (one := prod(before[axis] for axis in ours)) != (other := prod(after[axis] for axis in theirs)):
            if one < other:
                ours.append(left.pop(0))
            else:
                theirs.append(right.pop(0))
        yield ours, theirs


ELEMENTWISE: Final = (
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "Sum", "PRelu", "Where", "Equal", "Less", "Greater", "And",
    "Or",
)  # fmt: skip
SINGLE: Final = (
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sin",
    "Cos", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip
LEADING: Final = (
    "AveragePool", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization", "LpPool",
    "MaxPool",
)  # fmt: skip
REDUCED: Final = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2")

RULES: Final[dict[tuple[str, str], Rule]] = {
    **{("", kind): _broadcast for kind in ELEMENTWISE},
    **{("", kind): _same for kind in SINGLE},
    **{("com.microsoft", kind): _same for kind in ("FastGelu", "Gelu", "QuickGelu")},
    **{("", kind): _along for kind in ("LayerNormalization", "LogSoftmax", "Softmax")},
    **{("", kind): _leading for kind in LEADING},
    **{("", kind): _reduce for kind in REDUCED},
    **{("", kind): _reshape for kind in ("Flatten", "Reshape", "Squeeze", "Unsqueeze")},
    ("", "Concat"): _concat,
    ("", "Conv"): _conv,
    ("", "Gather"): _gather,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul,
    ("", "Slice"): _slice,
    ("", "Transpose"): _transpose,
}
