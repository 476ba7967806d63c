"""Static int8 quantization in QDQ form, with a loop that returns the worst nodes to float.

A real value r is kept as an 8-bit integer q with ``r = scale * (q - zero)``. Weights get one scale per output channel
(channels differ by orders of magnitude once batch norm is folded in), activations one per tensor, set from their range
on calibration rows. Three ways to choose that range are tried and the one with the least error is kept: the extremes
(minmax), a percentile, and the cut that loses least information (entropy; Migacz 2017). Jacob et al. 2018 is the
scheme's paper; Nagel et al. 2021 (arXiv 2106.08295) the best guide to its failures.

Error is the mean Kullback-Leibler divergence, in nats, from the float file's class probabilities on validation rows:
finer than a count of changed answers when there are few rows. If it stays above ``max_kl``, every node is
quantized alone, the one with the greatest error is left in float, and all is tried again, at most ``max_float_nodes``
times.

Saturation. x86 without VNNI multiplies unsigned activations with signed weights and adds PAIRS of products into 16
bits, which saturate silently at 32767: accuracy then depends on the CPU (one ResNet-50: 74.8 % with VNNI, 69.0 %
without). Weights are therefore kept to 7 bits (``reduce_range``): 255 * (64 + 64) = 32640 fits. ``fits_int16_pairs``
checks that bound on the finished file, so safety on AVX2 and plain AVX-512 is proven by arithmetic, not by hope. Other
formats can be asked for by ``variants.presets``; ``variants.saturation`` then says what they lose there.

What follows the last product stays in float, as the boxes of a detector are decoded there: pixels and scores joined in
one tensor would share one scale. A product of a few weights (the expectation over distances that YOLO ends with) is
part of that: it decodes, and has learnt nothing.

Int8 does not help everywhere: small layers cost more to convert than to compute, and WebGPU gives wrong results for
QDQ. The profile and the gates decide.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from variants.interface import graph_inputs
from variants.presets import PRESETS
from variants.probabilities import mean_kl
from variants.runtime import feed_of, run_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from variants.plans import Quantization
    from variants.recipe import Floats, Inputs

    Divergence = Callable[[Floats, Floats], float]

QUANTIZED_KINDS: Final = ("Conv", "Gemm", "MatMul", "Add")
"""Operators that compute in int8, and are returned to float one by one where that does harm."""

PRODUCTS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")

PASSING_KINDS: Final = (
    "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten", "Transpose", "Concat",
)  # fmt: skip
"""Operators between them that stay int8, so that values are not converted back and forth. Scaling of raw inputs (Mul,
Sub, Div, BatchNormalization) is left in float: one scale for features of different size would drown the small ones."""

FEWEST_WEIGHTS: Final = 32
"""A product of fewer is arithmetic and no layer."""

MOST_AT_ONCE: Final = 20
"""Calibration rows that run together."""

ACTIVATION_MAX: Final = 255
INT16_MAX: Final = 32767
METHODS: Final = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


def quantize(
    file: bytes,
    calibration: Inputs,
    validation: Inputs,
    plan: Quantization,
    advance: Callable[[], None],
    divergence: Divergence = mean_kl,
) -> tuple[bytes, dict[str, Any]]:
    """Return the int8 file and what was chosen: method, error and the nodes left in float.

    ``calibration`` and ``validation`` are input rows (rows, ...); ``advance`` is called after each method.
    ``divergence`` is the error of outputs where they are no logits.
    """
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(Path(folder), file, (calibration, validation), divergence)
        bench.formats = PRESETS[plan.preset]
        candidates = []
        for method in plan.methods:
            candidates.append((bench.error(bench.quantize(method, ())), method))
            advance()
        error, method = min(candidates)
        float_nodes: tuple[str, ...] = ()
        most = min(plan.max_float_nodes, bench.quantized_count)
        while error > plan.max_kl and len(float_nodes) < most:
            float_nodes = (*float_nodes, bench.worst_node(method, float_nodes))
            error = bench.error(bench.quantize(method, float_nodes))
        chosen = {"method": method, "kl_to_parent": round(error, 8), "float_nodes": list(float_nodes)}
        return bench.quantize(method, float_nodes), chosen


def fits_int16_pairs(file: bytes) -> bool:
    """Tell whether no pair of adjacent products can leave 16 bits, whatever the activations: safe without VNNI.

    A file without int8 weights proves nothing, and gets no.
    """
    graph = onnx.load_from_string(file).graph
    weights = [
        numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8
    ]
    largest = [int(np.abs(weight.astype(np.int32)).max()) for weight in weights if weight.ndim > 1 and weight.size]
    return bool(largest) and 2 * ACTIVATION_MAX * max(largest) <= INT16_MAX


def find_decoding(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the nodes that no product follows, and are none: they turn layers' outputs into the answer."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    needed: set[str] = set()  # what products, and what comes before them, are computed from
    decoding = []
    for node in reversed(graph.node):
        is_layer = node.op_type in PRODUCTS and sizes.get(node.input[1], FEWEST_WEIGHTS) >= FEWEST_WEIGHTS
        if is_layer or needed.intersection(node.output):
            needed.update(node.input)
        else:
            decoding.append(str(node.name))
    return tuple(reversed(decoding))


class _Bench:
    """A prepared float file in a temporary folder, and the rows to calibrate and judge with."""

    def __init__(self, folder: Path, file: bytes, rows: tuple[Inputs, Inputs], divergence: Divergence) -> None:
        self._prepared, self._output = folder / "prepared.onnx", folder / "int8.onnx"
        (folder / "float.onnx").write_bytes(file)
        quant_pre_process(str(folder / "float.onnx"), str(self._prepared), skip_symbolic_shape=True)
        graph = onnx.load(str(self._prepared)).graph
        self._input = graph_inputs(graph)[0].name
        self._decoding = find_decoding(graph)
        kinds = [(str(node.name), node.op_type) for node in graph.node]
        self._nodes = tuple(name for name, kind in kinds if kind in QUANTIZED_KINDS and name not in self._decoding)
        self._calibration, self._validation = rows
        self._divergence = divergence
        self._expected = run_logits(file, self._validation)  # (rows, ...)
        self.formats = PRESETS["portable"]

    def quantize(self, method: str, float_nodes: Sequence[str], only: Sequence[str] | None = None) -> bytes:
        """Return an int8 file; ``only`` quantizes just those nodes."""
        with contextlib.redirect_stdout(io.StringIO()):  # the calibrators print
            quantize_static(
                str(self._prepared),
                str(self._output),
                _Rows(self._input, self._calibration),
                quant_format=QuantFormat.QDQ,
                activation_type=self.formats.activations,
                weight_type=self.formats.weights,
                op_types_to_quantize=[*QUANTIZED_KINDS, *PASSING_KINDS],
                per_channel=True,
                reduce_range=self.formats.is_reduced,
                calibrate_method=METHODS[method],
                nodes_to_exclude=[*float_nodes, *self._decoding],
                nodes_to_quantize=None if only is None else list(only),
            )
        model = onnx.load(str(self._output))
        model.ClearField("metadata_props")
        model.graph.ClearField("value_info")
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    @property
    def quantized_count(self) -> int:
        """How many nodes can be returned to float."""
        return len(self._nodes)

    def error(self, file: bytes) -> float:
        """Return the mean divergence from the float file on validation rows, in nats or the given measure's units."""
        return self._divergence(self._expected, run_logits(file, self._validation))

    def worst_node(self, method: str, float_nodes: Sequence[str]) -> str:
        """Return the node whose quantization alone does most harm; ties go to the first."""
        rest = [name for name in self._nodes if name not in float_nodes]
        errors = {name: self.error(self.quantize(method, (), only=(name,))) for name in rest}
        return max(errors, key=errors.__getitem__)


class _Rows:
    """Feeds calibration rows one batch at a time, in order."""

    def __init__(self, name: str, inputs: Inputs) -> None:
        # The percentile and entropy methods want batches of one size.
        size = next(size for size in range(MOST_AT_ONCE, 0, -1) if len(inputs) % size == 0)
        self._batches: Iterator[Inputs] = iter(np.split(inputs, len(inputs) // size))
        self._name = name

    def get_next(self) -> dict[str, Inputs] | None:
        """Return the next batch, or ``None`` at the end."""
        batch = next(self._batches, None)
        return None if batch is None else feed_of(self._name, batch)
