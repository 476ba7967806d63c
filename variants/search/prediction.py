"""How long a file will take, told from its operators: a linear model, fitted to a few files that were timed.

Timing every candidate would need a quiet machine for all of a search. The time of one row is instead taken for a sum
over the nodes of its float graph, with coefficients that are never negative, for floats and for int8 apart::

    time = sum over kinds of node     count, and elements of output
         + sum over kinds of product  multiply-accumulates, by operator, kernel and output positions
         + sum over h                 max(0, MiB of weights - h)      h = 0, 1/4, 1/2, 1 ... 64
         + a constant

Channels count as the next multiple of the processor's vector width, because that is what its kernels compute; without
it the error was half as large again. The hinges stand for the caches: weights that do not fit into one are read from
the next at every run, so time rises faster once they are larger than it (which alone halved the error of float
files).

Fitted by non-negative least squares on RELATIVE errors (each equation is divided by its time), so that a file of 20
us counts like one of 1 ms (Lawson and Hanson 1974). Files to fit to are exported from random shapes, untrained,
because time does not depend on values; some more are timed in the same rounds and kept out of the fit: what the model
is off there is what it may be off on a candidate. Latency predictors from operators are common in architecture search
(Zhang et al. 2021, "nn-Meter"); this one is small because all candidates are slices of one network. It knows nothing
of networks with other operators, of other batch sizes, or of other machines.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from scipy.optimize import nnls

from variants.machine import detect_isa
from variants.sizing import infer_shapes, node_macs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from variants.search.space import Precision

Work = dict[str, float]
"""What a file has to do for one row, by kind."""

MIB: Final = 2**20
HINGES: Final = (0.0, *(2.0**power for power in range(-2, 7)))
PRODUCTS: Final = frozenset({"Conv", "Gemm", "MatMul"})
WEIGHT_BYTES: Final[dict[Precision, int]] = {"float32": 4, "int8": 1}
QUARTER: Final = 4


@dataclass(frozen=True, slots=True)
class Predictor:
    """Seconds for each unit of work."""

    costs_s: Mapping[str, float]

    def predict(self, work: Work) -> float:
        """Return the median time of one row on one thread, seconds."""
        return sum(self.costs_s.get(kind, 0.0) * amount for kind, amount in work.items())


def fit_predictor(works: Sequence[Work], times_s: Sequence[float]) -> Predictor:
    """Return the predictor that is least wrong about these files, in relative terms."""
    kinds = sorted({kind for work in works for kind in work})
    amounts = np.array([[work.get(kind, 0.0) for kind in kinds] for work in works])  # (files, kinds)
    relative = amounts / np.array(times_s)[:, None]
    scales = relative.max(axis=0)  # (kinds,); all amounts are positive somewhere
    costs, _ = nnls(relative / scales, np.ones(len(works)), maxiter=100 * len(kinds))
    return Predictor(dict(zip(kinds, (costs / scales).tolist(), strict=True)))


def count_work(file: bytes, precision: Precision) -> Work:
    """Return the work of a float file, or of what static int8 will make of it."""
    model = onnx.load_from_string(file)
    shapes = infer_shapes(model)
    work: dict[str, float] = defaultdict(float, constant=1.0)
    weight_bytes = 0.0
    for node in model.graph.node:
        output = prod(shapes.get(node.output[0]) or (0,))
        work[f"{node.op_type} nodes"] += 1.0
        work[f"{node.op_type} outputs"] += output
        if node.op_type in PRODUCTS:
            kind, padding = _kind(node, shapes)
            work[kind] += node_macs(node, shapes) * padding
            weight_bytes += prod(shapes.get(node.input[1]) or (0,)) * padding * WEIGHT_BYTES[precision]
    for hinge in HINGES:
        work[f"MiB of weights above {hinge:g}"] = max(0.0, weight_bytes / MIB - hinge)
    return {kind: amount for kind, amount in work.items() if amount > 0.0}


def _kind(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, float]:
    """Return the kind of a product, and how much larger padding to whole vectors makes it."""
    weight, output = shapes.get(node.input[1]) or (), shapes.get(node.output[0]) or ()
    if node.op_type != "Conv":
        return node.op_type, 1.0
    lanes = 16 if "avx512f" in detect_isa() else 8
    outputs, inputs = weight[:2]
    smallest = lanes if inputs >= lanes else QUARTER if inputs > 1 else 1
    padded = -(-outputs // lanes) * lanes * -(-inputs // smallest) * smallest
    return f"Conv {weight[2:]} at {prod(output[2:])}", padded / (outputs * inputs)
