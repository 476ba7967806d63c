"""Quantization schemes on a small float file, and what saturation would make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from variants.precision import halve, quantize_dynamically
from variants.probabilities import mean_kl
from variants.quantization import fits_int16_pairs, quantize
from variants.recipe import Quantization
from variants.runtime import run_logits
from variants.saturation import answer_saturating, judge_saturation
from variants.scoring import CLASSES
from variants.sizing import measure_size
from variants.weight_only import has_four_bits, pack_weights, split_gemms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from variants.presets import Preset

INPUTS, HIDDEN, OUTPUTS = 64, 96, 5


def model(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, NDArray[np.floating]], shape: Sequence[int]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    content: bytes = made.SerializeToString(deterministic=True)
    return content


@pytest.fixture(scope="module")
def gemms() -> bytes:
    """Two linear layers as exporters write them: Gemm of a turned weight, and a bias."""
    random = np.random.default_rng(0)
    weights = {
        "A": random.normal(size=(HIDDEN, INPUTS)) / 8,
        "a": random.normal(size=HIDDEN),
        "B": random.normal(size=(OUTPUTS, HIDDEN)) / 8,
        "b": random.normal(size=OUTPUTS),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "A", "a"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "B", "b"], ["y"], name="second", transB=1),
    ]
    return model(nodes, weights, [INPUTS])


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(200, INPUTS)).astype(np.float32)


def static(preset: Preset) -> Callable[[bytes, NDArray[np.float32]], bytes]:
    plan = Quantization(methods=("minmax",), max_float_nodes=0, preset=preset)
    return lambda file, rows: quantize(file, rows[:100], rows[100:], plan, lambda: None)[0]


SCHEMES: dict[str, tuple[Callable[[bytes, NDArray[np.float32]], bytes], set[str], float]] = {
    "static, portable": (static("portable"), {"QuantizeLinear"}, 0.45),
    "static, vnni": (static("vnni"), {"QuantizeLinear"}, 0.45),
    "static, arm64": (static("arm64"), {"QuantizeLinear"}, 0.45),
    "dynamic": (lambda file, _: quantize_dynamically(file), {"DynamicQuantizeLinear"}, 0.45),
    "half": (lambda file, _: halve(file), {"Cast"}, 0.6),
    "int4": (lambda file, _: pack_weights(file), {"MatMulNBits"}, 0.3),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_makes_a_smaller_file_that_answers_alike(gemms: bytes, rows: NDArray[np.float32], scheme: str) -> None:
    convert, operators, share = SCHEMES[scheme]
    file = convert(gemms, rows)
    assert operators <= {node.op_type for node in onnx.load_from_string(file).graph.node}
    assert len(file) < share * len(gemms) + 2000
    expected, actual = run_logits(gemms, rows), run_logits(file, rows)
    assert (expected.argmax(1) == actual.argmax(1)).mean() > 0.9
    assert mean_kl(expected, actual) < 0.05
    assert measure_size(file).macs == measure_size(gemms).macs == HIDDEN * (INPUTS + OUTPUTS)


def test_the_portable_preset_alone_is_proven_against_saturation(gemms: bytes, rows: NDArray[np.float32]) -> None:
    assert [fits_int16_pairs(static(preset)(gemms, rows)) for preset in ("portable", "vnni", "arm64")] == [
        True,
        False,
        False,
    ]


def test_four_bits_take_the_weights_of_every_gemm(gemms: bytes) -> None:
    file = pack_weights(gemms)
    graph = onnx.load_from_string(file).graph
    packed = [node for node in graph.node if node.op_type == "MatMulNBits"]
    levels = [item.i for node in packed for item in node.attribute if item.name == "accuracy_level"]
    assert (len(packed), levels) == (2, [4, 4])
    assert not any(node.op_type == "Gemm" for node in graph.node)
    assert has_four_bits(file)
    assert not has_four_bits(gemms)
    weights = HIDDEN * (INPUTS + OUTPUTS)
    assert measure_size(file).parameters >= weights
    assert measure_size(file).weight_bytes["UINT8"] < 0.7 * weights


def test_a_gemm_and_its_product_and_sum_answer_alike(rows: NDArray[np.float32]) -> None:
    random = np.random.default_rng(2)
    weights = {"A": random.normal(size=(INPUTS, 7)), "a": random.normal(size=7)}
    turned = [
        helper.make_node("Gemm", ["x", "A"], ["h"], alpha=0.5),
        helper.make_node("Add", ["h", "a"], ["y"]),
    ]
    plain = [helper.make_node("Gemm", ["x", "A", "a"], ["y"], alpha=0.5, beta=1.0)]
    kept = [helper.make_node("Gemm", ["x", "A", "a"], ["y"], beta=2.0)]
    for nodes, kinds in ((turned, {"MatMul", "Add"}), (plain, {"MatMul", "Add"}), (kept, {"Gemm"})):
        file = model(nodes, weights, [INPUTS])
        assert {node.op_type for node in onnx.load_from_string(split_gemms(file)).graph.node} == kinds
        assert np.allclose(run_logits(split_gemms(file), rows), run_logits(file, rows), atol=1e-4)


def quantized_product(activations: type = np.uint8, kind: str = "MatMul") -> bytes:
    """Return an int8 product of 4 bytes with weights 127, 127, 127, -100, all scales 1."""
    weight = np.array([[127], [127], [127], [-100]], np.int8)
    is_conv = kind == "Conv"
    constants: dict[str, NDArray[Any]] = {
        "w": weight.reshape(1, 4, 1, 1) if is_conv else weight,
        "one": np.array(1.0, np.float32),
        "zero_x": np.array(0, activations),
        "zero_w": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero_x"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero_x"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "one", "zero_w"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["y"], kernel_shape=[1, 1])
        if is_conv
        else helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4, *([1, 1] if is_conv else [])])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    content: bytes = made.SerializeToString()
    return content


@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
def test_saturation_equals_the_hand_calculation(kind: str) -> None:
    inputs = np.array([[255, 255, 255, 0], [100, 100, 255, 255], [255, 100, 0, 255]], np.float32)
    inputs = inputs.reshape(3, 4, 1, 1) if kind == "Conv" else inputs
    answers = answer_saturating(quantized_product(kind=kind), inputs).ravel()
    # 2 * 255 * 127 = 64770 is cut to 32767; 355 * 127 = 45085 too; pairs of unlike signs fit.
    assert answers.tolist() == [32767 + 32385, 25400 + 32385 - 25500, 32767 - 25500]


def test_signed_activations_are_shifted_before_they_saturate() -> None:
    inputs = np.array([[127, 127, 0, 0], [-128, -128, 0, 0]], np.float32)
    answers = answer_saturating(quantized_product(np.int8), inputs).ravel()
    # Shifted by 128 they are 255 and 0; what is cut off the first pair is 64770 - 32767.
    assert answers.tolist() == [2 * 127 * 127 - (64770 - 32767), -2 * 128 * 127]


def test_saturation_is_judged_by_what_it_loses() -> None:
    """A class is a quarter of large inputs that its weights favour a little; every pair of them is cut off."""
    quarters = np.repeat(np.eye(4), INPUTS // 4, axis=0)  # (inputs, classes)
    file = model([helper.make_node("MatMul", ["x", "A"], ["y"], name="product")], {"A": 0.9 + 0.1 * quarters}, [INPUTS])
    noise = np.random.default_rng(3).random(size=(128, INPUTS))
    inputs = (3.0 + 0.5 * quarters.T[np.arange(128) % 4] + 0.1 * noise).astype(np.float32)
    labels = run_logits(file, inputs).argmax(1)
    verdicts = {}
    presets: tuple[Preset, ...] = ("portable", "vnni")
    for preset in presets:
        plan = Quantization(methods=("minmax",), max_float_nodes=0, preset=preset)
        int8, _ = quantize(file, inputs, inputs, plan, lambda: None)
        verdicts[preset] = judge_saturation(int8, inputs, labels, CLASSES)
    assert (verdicts["portable"].verdict, verdicts["portable"].agreement) == ("pass", 1.0)
    assert (verdicts["vnni"].verdict, verdicts["vnni"].rows) == ("fail", 128)
    assert verdicts["vnni"].loss > 0.05
