"""What an int8 file answers on a processor whose pairs of products saturate, found on a processor where none do.

x86 without VNNI (AVX2, plain AVX-512) multiplies unsigned bytes x with signed bytes w by ``vpmaddubsw``, which adds two
neighbouring products into 16 bits and cuts the sum off at -32768 and 32767. What is cut off one pair is::

    deficit(x0, x1) = p - min(max(p, -32768), 32767)        p = x0 * w0 + x1 * w1,   x in 0..255

and a product's answer there is the exact one less ``scale_x * scale_w * sum of deficits``. Neighbours are as ONNX
Runtime's kernels have them: along the inner dimension of a product, and for a convolution channel by channel within one
place of the kernel. Signed activations are shifted to unsigned ones there, and here. A pair whose weights of one sign
add up to at most 128 can never be cut, which leaves so few that all of them are computed exactly.

A deficit changes the inputs of all later layers, so they are found layer by layer: the file, its graph otherwise as it
is, gets one more input for each product, which is subtracted from its answer, and is run once for each layer. That
arithmetic is in floats and without the runtime's own int8 kernels: it is the same on every processor.

Depthwise convolutions are passed over: their kernels add in 32 bits everywhere. Grouped ones are not emulated, and the
verdict is then inconclusive. Wrong where a later runtime has other kernels: this is one instruction, no processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from variants.evidence import Saturation
from variants.interface import graph_inputs
from variants.runtime import ROWS_AT_ONCE, feed_of
from variants.sampling import sample_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from variants.evidence import Verdict
    from variants.recipe import Floats, Inputs, Labels
    from variants.scoring import Scoring

    Whole = NDArray[np.int32]

KINDS: Final = ("Conv", "Gemm", "MatMul")
DEQUANTIZE: Final = "DequantizeLinear"
HARMLESS_SUM: Final = 128  # 255 * 128 = 32640
INT16: Final = np.iinfo(np.int16)
MOST_ROWS: Final = 512
ALLOWED_LOSS: Final = 0.005
PICTURES: Final = 4


def judge_saturation(file: bytes, inputs: Inputs, labels: Labels, scoring: Scoring) -> Saturation:
    """Return what the file loses where pairs saturate, on up to 512 of ``inputs`` (rows, ...) with ``labels``."""
    rows = sample_rows(len(inputs), MOST_ROWS)
    inputs, labels = inputs[rows], labels[rows]
    tapped = _Tapped(file)
    exact = np.concatenate([tapped.run(batch, {}) for batch in _batches(inputs)])
    cut = answer_saturating(file, inputs)
    loss = float(scoring.right(exact, labels).mean() - scoring.right(cut, labels).mean())
    verdict: Verdict = "fail" if loss > ALLOWED_LOSS else "pass" if tapped.is_whole else "inconclusive"
    return Saturation(rows=len(inputs), agreement=float(scoring.same(cut, exact).mean()), loss=loss, verdict=verdict)


def answer_saturating(file: bytes, inputs: Inputs) -> Floats:
    """Return the file's first output (rows, ...) where every pair of products saturates at 16 bits."""
    tapped = _Tapped(file)
    return np.concatenate([_saturate(tapped, batch) for batch in _batches(inputs)])


def _saturate(tapped: _Tapped, batch: Inputs) -> Floats:
    deficits: dict[str, Floats] = {}
    for product in tapped.products:
        if product.pairs:
            deficits[product.output] = product.deficit(tapped.run(batch, deficits, product.activation))
    answers: Floats = tapped.run(batch, deficits)
    return answers


def _batches(inputs: Inputs) -> list[Inputs]:
    return [inputs[start : start + ROWS_AT_ONCE] for start in range(0, len(inputs), ROWS_AT_ONCE)]


@dataclass(frozen=True, slots=True)
class _Product:
    """One product of the graph: where its bytes come from, and the pairs of its weights that could be cut off."""

    node: onnx.NodeProto
    output: str
    activation: str
    shift: int
    zero: int
    scale: NDArray[np.float64]
    weight: Whole
    pairs: tuple[tuple[int, int], ...]

    def deficit(self, activation: NDArray[Any]) -> Floats:
        """Return what is cut off the node's answer, in its shape, given its bytes (rows, ...)."""
        rows = self._lay_out(activation.astype(np.int32) + self.shift)  # (..., inner)
        columns = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]).T)  # (inner, places)
        cut = np.zeros((len(self.weight), columns.shape[1]))  # (outer, places)
        for inner, outer in self.pairs:
            first, second = self.weight[outer, inner : inner + 2]
            pair = columns[inner] * first + columns[inner + 1] * second  # (places,)
            cut[outer] += pair - np.clip(pair, INT16.min, INT16.max)
        scaled = (cut.T * self.scale).astype(np.float32).reshape(*rows.shape[:-1], -1)
        return np.moveaxis(scaled, -1, 1) if self.node.op_type == "Conv" else scaled

    def _lay_out(self, activation: Whole) -> Whole:
        """Return the bytes as rows of the product (..., inner), an even number of them."""
        rows = _unfold(activation, self.node, self.zero) if self.node.op_type == "Conv" else activation
        return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, rows.shape[-1] % 2)])


class _Tapped:
    """An int8 file whose products' bytes can be read and whose answers can be changed."""

    def __init__(self, file: bytes) -> None:
        model = onnx.load_from_string(file)
        self._answer = model.graph.output[0].name
        self._input = graph_inputs(model.graph)[0].name
        self.products, self.is_whole = _find_products(model.graph)
        for product in self.products:
            _tap(model.graph, product)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, batch: Inputs, deficits: Mapping[str, Floats], output: str = "") -> Any:  # noqa: ANN401 - bytes or floats
        """Return an output (rows, ...), the first one by default, with ``deficits`` taken off the products' answers."""
        nothing = np.zeros(1, np.float32)
        feed = {_name(item): deficits.get(item.output, nothing) for item in self.products}
        return self._session.run([output or self._answer], feed | feed_of(self._input, batch))[0]


def _name(product: _Product) -> str:
    return f"{product.output}_deficit"


def _tap(graph: onnx.GraphProto, product: _Product) -> None:
    """Subtract a new input from the product's answer, and make its bytes an output."""
    node = next(item for item in graph.node if product.output in item.output)
    place = list(graph.node).index(node)
    node.output[0] = f"{product.output}_exact"
    graph.node.insert(place + 1, helper.make_node("Sub", [node.output[0], _name(product)], [product.output]))
    graph.input.append(helper.make_tensor_value_info(_name(product), onnx.TensorProto.FLOAT, None))
    if product.activation not in {value.name for value in graph.output}:
        graph.output.append(helper.make_empty_tensor_value_info(product.activation))


def _find_products(graph: onnx.GraphProto) -> tuple[list[_Product], bool]:
    """Return the products of two dequantized sides, and whether these are all that could saturate."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found, is_whole = [], True
    for node in graph.node:
        sides = [makers.get(name) for name in node.input[:2]]
        if node.op_type not in KINDS or any(side is None or side.op_type != DEQUANTIZE for side in sides):
            continue
        left, right = sides
        weight = constants.get(right.input[0]) if right is not None else None
        is_known = weight is not None and (node.op_type != "Conv" or _is_plain(node, weight))
        if left is None or right is None or weight is None or not is_known:
            is_whole &= weight is not None and _is_depthwise(node, weight)
            continue
        found.append(_product(node, left, right, constants))
    return found, is_whole


def _is_plain(node: onnx.NodeProto, weight: NDArray[Any]) -> bool:
    return weight.ndim == PICTURES and _integer(node, "group", 1) == 1


def _is_depthwise(node: onnx.NodeProto, weight: NDArray[Any]) -> bool:
    return node.op_type == "Conv" and _integer(node, "group", 1) > 1 and weight.shape[1] == 1


def _product(
    node: onnx.NodeProto, left: onnx.NodeProto, right: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]
) -> _Product:
    scale, zero = (constants[name] for name in left.input[1:3])
    weight = _rows_of_weights(node, constants[right.input[0]].astype(np.int32))  # (outer, inner)
    shift = 0 if zero.dtype == np.uint8 else -int(np.iinfo(np.int8).min)
    return _Product(
        node=node,
        output=str(node.output[0]),
        activation=str(left.input[0]),
        shift=shift,
        zero=int(zero) + shift,
        scale=scale.astype(np.float64) * constants[right.input[1]].astype(np.float64),
        weight=weight,
        pairs=_risky_pairs(weight),
    )


def _risky_pairs(weight: Whole) -> tuple[tuple[int, int], ...]:
    """Return (inner, outer) of every pair of neighbours whose sum could leave 16 bits."""
    pairs = weight.reshape(len(weight), -1, 2)
    high, low = np.maximum(pairs, 0).sum(2), np.minimum(pairs, 0).sum(2)  # (outer, inner / 2)
    outer, inner = np.nonzero((high > HARMLESS_SUM) | (low < -HARMLESS_SUM))
    return tuple((int(2 * place), int(row)) for place, row in zip(inner, outer, strict=True))


def _rows_of_weights(node: onnx.NodeProto, weight: Whole) -> Whole:
    """Return the weights as (outer, inner), the inner dimension in the kernel's order and even."""
    if node.op_type == "Conv":
        rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    else:
        rows = weight if node.op_type == "Gemm" and _integer(node, "transB", 0) else weight.T
    return np.pad(rows, [(0, 0), (0, rows.shape[1] % 2)])


def _unfold(pictures: Whole, node: onnx.NodeProto, zero: int) -> Whole:
    """Return what a convolution multiplies at each place: (rows, height, width, kernel places * channels)."""
    attributes = {item.name: list(item.ints) for item in node.attribute}
    (high, wide), (down, right) = attributes["kernel_shape"], attributes.get("strides", [1, 1])
    top, left, bottom, end = attributes.get("pads", [0, 0, 0, 0])
    far, apart = attributes.get("dilations", [1, 1])
    padded = np.pad(pictures, [(0, 0), (0, 0), (top, bottom), (left, end)], constant_values=zero)
    reach = ((high - 1) * far + 1, (wide - 1) * apart + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, (2, 3))[:, :, ::down, ::right, ::far, ::apart]
    laid = windows.transpose(0, 2, 3, 4, 5, 1)  # (rows, height, width, high, wide, channels)
    return np.ascontiguousarray(laid.reshape(*laid.shape[:3], -1))


def _integer(node: onnx.NodeProto, name: str, usual: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), usual)
