"""Repair after channels were cut from a file: layers that read fewer of them are fitted to what they gave before.

A layer that loses inputs loses what they contributed, yet channels are correlated, so those that stay can say much of
what the others said. For each such layer, in the order of the graph, with ``X`` what it now reads at sampled places and
``Y`` what it gave in the uncut file at the same places, the new weights are the least squares of::

    || X W + b - Y ||^2 + ridge * || W - W_cut ||^2

which has a closed form, needs no labels and no gradient, and takes some hundred rows (He, Zhang and Sun 2017, "Channel
Pruning for Accelerating Very Deep Neural Networks"). ``X`` comes from the file as cut AND repaired so far, so that a
layer mends what earlier ones could not; where the layer's result is added to a residual stream, ``Y`` is what brings
the SUM back, as in section 3.3 there. The ridge holds directions that the rows say nothing of at the weights as cut.

Wrong where rows are few and unlike what clients send: the fit then follows the rows. Depthwise convolutions, layers
whose weights others share, and convolutions that say ``auto_pad`` in place of their padding stay as cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from variants.onnx_rules import attributes
from variants.runtime import feed_of, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from variants.onnx_rules import Units
    from variants.recipe import Inputs

    Readers = Mapping[str, list[onnx.NodeProto]]

ROWS_AT_ONCE: Final = 16
RIDGE: Final = 0.01
"""Times the mean square of what the layer reads."""
PLACES_PER_WEIGHT: Final = 4
MOST_PLACES: Final = 16384
FEWEST_PLACES: Final = 2048
MOST_INPUTS: Final = 5000
"""Of one output: the equations of more take gigabytes."""

Values = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """A node that multiplies with weights; ``outputs`` are the places of its output channels that are kept."""

    node: onnx.NodeProto
    outputs: Units | None

    @property
    def channel_axis(self) -> int:
        """Where channels stand in what it reads and gives."""
        return 1 if self.node.op_type == "Conv" else -1


def run_named(model: onnx.ModelProto, names: Sequence[str], inputs: Inputs) -> Iterator[list[Values]]:
    """Yield the tensors ``names`` for some of the rows at a time; nodes that they do not need are not run."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    needed = set(names)
    for at in range(len(part.graph.node) - 1, -1, -1):
        node = part.graph.node[at]
        if needed.intersection(node.output):
            needed.update(node.input)
        else:
            del part.graph.node[at]
    part.graph.ClearField("output")
    part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = open_session(part.SerializeToString())
    taken = {item.name for item in session.get_inputs()}
    first = next(value.name for value in model.graph.input if value.name in taken)
    for start in range(0, len(inputs), ROWS_AT_ONCE):
        feed = feed_of(first, inputs[start : start + ROWS_AT_ONCE])
        yield session.run(list(names), {name: rows for name, rows in feed.items() if name in taken})


def repair(full: onnx.ModelProto, cut: onnx.ModelProto, layers: Sequence[Layer], inputs: Inputs) -> None:
    """Fit the weights of ``layers``, nodes of ``cut`` in its order, so that they give what they gave in ``full``."""
    for layer in layers:
        plan = _plan(cut, layer)
        if plan is not None:
            _fit(full, cut, plan, inputs)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is fitted, and to what: the tensor ``target``, less ``beside``, which is added before it is reached."""

    layer: Layer
    weight: onnx.TensorProto
    bias: onnx.TensorProto | None
    target: str
    beside: str | None


def _plan(cut: onnx.ModelProto, layer: Layer) -> _Plan | None:
    """Return how to fit the layer, ``None`` where that is not known."""
    graph, node = cut.graph, layer.node
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers = _readers(graph)
    weight = weights.get(node.input[1])
    if weight is None or len(readers[weight.name]) > 1 or not _is_understood(node, weight):
        return None
    bias, target = _find_bias(graph, node, readers, weight.dims[_output_axis(node)])
    adding = _added(readers, target)
    others = [] if adding is None else [name for name in adding.input if name != target and name not in weights]
    if adding is None or not others:
        return _Plan(layer, weight, bias, target, None)
    return _Plan(layer, weight, bias, adding.output[0], others[0])


def _is_understood(node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    """Tell whether the node is a plain product of weights of 32 bits, and not of too many."""
    settings = attributes(node)
    is_plain = all(settings.get(name, 1) == 1 for name in ("alpha", "beta", "group"))
    is_padded = settings.get("auto_pad", b"NOTSET") in {b"NOTSET", b"VALID"}
    inputs = prod(weight.dims) // weight.dims[_output_axis(node)]
    return is_plain and is_padded and inputs <= MOST_INPUTS and weight.data_type == onnx.TensorProto.FLOAT


def _find_bias(
    graph: onnx.GraphProto, node: onnx.NodeProto, readers: Readers, outputs: int
) -> tuple[onnx.TensorProto | None, str]:
    """Return the layer's own bias, made where there is none, or that of the addition behind it; and what follows it."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    bias, target = None, node.output[0]
    if len(node.input) > 2 and node.input[2]:  # noqa: PLR2004 - a bias is the third
        bias = weights.get(node.input[2])
    elif node.op_type != "MatMul":
        return _add_bias(graph, node, outputs), target
    elif (adding := _added(readers, target)) is not None:
        bias = next((weights[name] for name in adding.input if name in weights), None)
        target = target if bias is None else adding.output[0]
    is_own = bias is not None and len(readers[bias.name]) == 1 and tuple(bias.dims) == (outputs,)
    return bias if is_own else None, target if is_own else node.output[0]


def _added(readers: Readers, name: str) -> onnx.NodeProto | None:
    """Return the addition that alone reads a tensor, if one does."""
    following = readers.get(name, [])
    return following[0] if len(following) == 1 and following[0].op_type == "Add" else None


def _readers(graph: onnx.GraphProto) -> Readers:
    """Return the nodes that read each tensor; what the graph answers counts as read twice, so that it stays."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for value in graph.output:
        readers.setdefault(value.name, []).extend([onnx.NodeProto(op_type="output")] * 2)
    return readers


def _add_bias(graph: onnx.GraphProto, node: onnx.NodeProto, outputs: int) -> onnx.TensorProto:
    name = f"{node.name}_offset"
    offset: onnx.TensorProto = graph.initializer.add()
    offset.CopyFrom(numpy_helper.from_array(np.zeros(outputs, dtype=np.float32), name))
    del node.input[2:]
    node.input.append(name)
    return offset


def _output_axis(node: onnx.NodeProto) -> int:
    """Return which axis of the weights is the output channels."""
    return 0 if node.op_type == "Conv" or attributes(node).get("transB") else 1


def _fit(full: onnx.ModelProto, cut: onnx.ModelProto, plan: _Plan, inputs: Inputs) -> None:
    layer, node = plan.layer, plan.layer.node
    array = numpy_helper.to_array(plan.weight)
    is_first = _output_axis(node) == 0
    flat = (array if is_first else array.T).reshape(array.shape[0 if is_first else 1], -1)  # (outputs, inputs)
    bias = np.zeros(len(flat)) if plan.bias is None else numpy_helper.to_array(plan.bias).astype(np.float64)
    sums = _Sums(flat.shape[1], len(flat), has_bias=plan.bias is not None)
    wanted = np.clip(PLACES_PER_WEIGHT * flat.shape[1], FEWEST_PLACES, MOST_PLACES)
    sample = _sampler(node, array.shape, max(1, int(wanted) // len(inputs)))
    names = [node.input[0], *([plan.beside] if plan.beside else [])]
    pairs = zip(run_named(cut, names, inputs), run_named(full, [plan.target], inputs), strict=True)
    for (read, *beside), (given,) in pairs:
        kept = given if layer.outputs is None else given.take(layer.outputs, layer.channel_axis)
        left = kept - beside[0] if beside else kept
        features, results = sample(read, np.broadcast_to(left, kept.shape))
        sums.add(features, results - features @ flat.T - bias)
    change, offset = sums.solve()  # (inputs, outputs), (outputs,)
    fitted = (flat + change.T).reshape(array.shape if is_first else array.shape[::-1])
    _store(plan.weight, fitted if is_first else fitted.T)
    if plan.bias is not None:
        _store(plan.bias, bias + offset)


def _store(tensor: onnx.TensorProto, values: Values) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), tensor.name))


class _Sums:
    """The sums that least squares needs, batch by batch."""

    def __init__(self, inputs: int, outputs: int, *, has_bias: bool) -> None:
        self._rows, self._has_bias = 0, has_bias
        self._inputs, self._outputs = np.zeros(inputs), np.zeros(outputs)
        self._squares, self._products = np.zeros((inputs, inputs)), np.zeros((inputs, outputs))

    def add(self, features: Values, missing: Values) -> None:
        """Count rows of what is read (rows, inputs) and of what the output lacks (rows, outputs)."""
        features, missing = features.astype(np.float64), missing.astype(np.float64)
        self._rows += len(features)
        self._inputs += features.sum(axis=0)
        self._outputs += missing.sum(axis=0)
        self._squares += features.T @ features
        self._products += features.T @ missing

    def solve(self) -> tuple[Values, Values]:
        """Return what to add to the weights (inputs, outputs) and to the bias (outputs,)."""
        squares, products = self._squares, self._products
        if self._has_bias:
            squares = squares - np.outer(self._inputs, self._inputs) / self._rows
            products = products - np.outer(self._inputs, self._outputs) / self._rows
        ridge = RIDGE * float(np.trace(squares)) / len(squares) + 1e-12
        change = np.linalg.solve(squares + ridge * np.eye(len(squares)), products)
        offset = (
            (self._outputs - self._inputs @ change) / self._rows if self._has_bias else np.zeros(len(self._outputs))
        )
        return change, offset


def _sampler(
    node: onnx.NodeProto, weight: tuple[int, ...], per_row: int
) -> Callable[[Values, Values], tuple[Values, Values]]:
    """Return what turns a layer's input and output into rows of features and of results, at ``per_row`` places."""
    draw = np.random.default_rng(0)

    def flat(read: Values, given: Values) -> tuple[Values, Values]:
        features, results = read.reshape(-1, read.shape[-1]), given.reshape(-1, given.shape[-1])
        chosen = draw.permutation(len(features))[: per_row * len(read)]
        return features[chosen], results[chosen]

    def windows(read: Values, given: Values) -> tuple[Values, Values]:
        settings, places = attributes(node), given.shape[2:]
        rank = len(places)
        steps, spread = settings.get("strides", [1] * rank), settings.get("dilations", [1] * rank)
        pads = settings.get("pads", [0] * 2 * rank)
        padded = np.pad(read, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
        reach = [(size - 1) * gap + 1 for size, gap in zip(weight[2:], spread, strict=True)]
        view = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + rank)))
        chosen = draw.integers(0, prod(places), (len(read), min(per_row, prod(places))))
        row = np.repeat(np.arange(len(read)), chosen.shape[1])
        at = np.unravel_index(chosen.ravel(), places)
        starts = tuple(index * step for index, step in zip(at, steps, strict=True))
        every: list[Any] = [row, slice(None)]
        taken = view[(*every, *starts)]  # (places, channels, *reach)
        taken = taken[(slice(None), slice(None), *(slice(None, None, gap) for gap in spread))]
        return taken.reshape(len(row), -1), given[(*every, *at)]

    return windows if node.op_type == "Conv" else flat
