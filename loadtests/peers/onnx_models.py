"""The models that every server serves: small enough in compute that the servers' own cost is what is measured."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from loadtests.shots import Row

if TYPE_CHECKING:
    from loadtests.shots import Array

INPUT: Final = "x"
OUTPUT: Final = "y"
CLASSES: Final = 10
MAX_BATCH: Final = 16
_SEED: Final = 0
_HIDDEN: Final = 64
_IR: Final = 10
_OPSET: Final = 17


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A model from ``x [-1, *row_shape]`` to ``y [-1, 10]``, FP32."""

    name: str
    row_shape: tuple[int, ...]
    content: bytes

    @property
    def row(self) -> Row:
        """One seeded input of three decimals an element, as normalised data has them."""
        values = np.random.default_rng(_SEED).uniform(0.0, 1.0, (1, *self.row_shape)).round(3)
        return Row(INPUT, values.astype(np.float32))

    @property
    def sha256(self) -> str:
        """The digest of the file."""
        return hashlib.sha256(self.content).hexdigest()

    def session(self) -> ort.InferenceSession:
        """Return a session as every server of the bench has it: one thread, which does not spin while it waits."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    def expected(self) -> Array:
        """Return the runtime's answer to ``row``."""
        output: Array = self.session().run(None, {INPUT: self.row.data})[0]
        return output

    def measure(self, rows: int, runs: int) -> list[float]:
        """Return the times of ``runs`` runtime calls with ``rows`` rows, in seconds; a tenth as many warm up."""
        session = self.session()
        inputs = {INPUT: np.repeat(self.row.data, rows, axis=0)}
        for _ in range(runs // 10):
            session.run(None, inputs)
        times = []
        for _ in range(runs):
            start_s = time.perf_counter()
            session.run(None, inputs)
            times.append(time.perf_counter() - start_s)
        return times


def make_models() -> dict[str, BenchModel]:
    """Return the models by name."""
    return {model.name: model for model in (_mlp(), _image())}


def median_s(times_s: list[float]) -> float:
    """Return the median."""
    return statistics.median(times_s)


def _mlp() -> BenchModel:
    """Return a 64-64-10 perceptron: about 5,000 multiply-accumulates."""
    random = np.random.default_rng(_SEED)
    nodes = [
        helper.make_node("Gemm", [INPUT, "w1", "b1"], ["z1"]),
        helper.make_node("Relu", ["z1"], ["h1"]),
        helper.make_node("Gemm", ["h1", "w2", "b2"], [OUTPUT]),
    ]
    weights = {**_layer(random, 1, 64, _HIDDEN), **_layer(random, 2, _HIDDEN, CLASSES)}
    return _model("mlp", (64,), nodes, weights)


def _image() -> BenchModel:
    """Return a model of an image of 602,112 bytes that computes next to nothing: each channel's mean, then 3 to 10."""
    nodes = [
        helper.make_node("GlobalAveragePool", [INPUT], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["channels"]),
        helper.make_node("Gemm", ["channels", "w1", "b1"], [OUTPUT]),
    ]
    return _model("image", (3, 224, 224), nodes, _layer(np.random.default_rng(_SEED), 1, 3, CLASSES))


def _layer(random: np.random.Generator, number: int, width: int, classes: int) -> dict[str, Array]:
    weight = random.normal(0.0, 1.0 / math.sqrt(width), (width, classes))
    return {f"w{number}": weight.astype(np.float32), f"b{number}": random.normal(0.0, 0.1, classes).astype(np.float32)}


def _model(name: str, row_shape: tuple[int, ...], nodes: list[Any], weights: dict[str, Array]) -> BenchModel:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", *row_shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", CLASSES])],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    proto = helper.make_model(graph, ir_version=_IR, opset_imports=[helper.make_opsetid("", _OPSET)])
    onnx.checker.check_model(proto, full_check=True)
    return BenchModel(name, row_shape, proto.SerializeToString())
