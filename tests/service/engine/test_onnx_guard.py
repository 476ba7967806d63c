from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from service.domain.errors import BackendFailed
from service.engine.onnx_guard import refuse_outside_references
from tests.builders import onnx_model, sums_onnx

WEIGHT = numpy_helper.from_array(np.ones((4, 1), dtype=np.float32), "weight")
MATMUL = helper.make_node("MatMul", ["x", "weight"], ["y"])
OUTSIDE = "keeps weights outside the file"


def outside(name: str = "weight") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones((4, 1), dtype=np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["weight"], value=tensor)


def branch(tensor: TensorProto) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [4, 1])
    return helper.make_graph([constant(tensor)], "branch", [], [value])


def conditional(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("If", ["flag"], ["weight"], then_branch=branch(WEIGHT), else_branch=branch(tensor))


def function(nodes: list[onnx.NodeProto], domain: str = "local", **attributes: Any) -> onnx.FunctionProto:  # noqa: ANN401
    return helper.make_function(domain, "Weigh", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)], **attributes)


def model_with_function(found: onnx.FunctionProto) -> bytes:
    node = helper.make_node("Weigh", ["x"], ["y"], domain=found.domain)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(found.domain, 1)]
    return onnx_model([node], functions=[found], opset_imports=imports)


def training_model() -> bytes:
    model = onnx.load_from_string(sums_onnx())
    model.training_info.add().initialization.initializer.append(outside())
    content: bytes = model.SerializeToString()
    return content


def sparse(values: TensorProto) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(4, dtype=np.int64), "indices")
    return helper.make_sparse_tensor(values, indices, [4, 1])


def sparse_model() -> bytes:
    model = onnx.load_from_string(onnx_model([MATMUL]))
    values = outside()
    values.dims[:] = [4]
    model.graph.sparse_initializer.append(sparse(values))
    content: bytes = model.SerializeToString()
    return content


DEFAULT_WITH_TENSOR = helper.make_attribute("weight", outside())

REACHES_OUTSIDE = {
    "an initializer": onnx_model([MATMUL], [outside()]),
    "a constant node": onnx_model([constant(outside()), MATMUL]),
    "a branch of a conditional": onnx_model([conditional(outside()), MATMUL]),
    "a conditional in a conditional": onnx_model(
        [
            helper.make_node(
                "If",
                ["flag"],
                ["weight"],
                then_branch=branch(WEIGHT),
                else_branch=helper.make_graph(
                    [conditional(outside())], "outer", [], [helper.make_tensor_value_info("weight", 1, [4, 1])]
                ),
            ),
            MATMUL,
        ]
    ),
    "a list of tensors": onnx_model([helper.make_node("Any", [], ["y"], values=[WEIGHT, outside()])]),
    "a list of graphs": onnx_model([helper.make_node("Any", [], ["y"], graphs=[branch(WEIGHT), branch(outside())])]),
    "a function's node": model_with_function(function([constant(outside()), MATMUL])),
    "a function's default attribute": model_with_function(
        function([constant(WEIGHT), MATMUL], attribute_protos=[DEFAULT_WITH_TENSOR])
    ),
    "training information": training_model(),
    "a sparse initializer": sparse_model(),
}


@pytest.mark.parametrize("model", REACHES_OUTSIDE.values(), ids=REACHES_OUTSIDE.keys())
def test_guard_refuses_external_data_wherever_it_hides(model: bytes) -> None:
    with pytest.raises(BackendFailed, match=OUTSIDE):
        refuse_outside_references(model)


def test_guard_refuses_a_location_without_entries() -> None:
    tensor = outside()
    tensor.ClearField("external_data")
    with pytest.raises(BackendFailed, match=OUTSIDE):
        refuse_outside_references(onnx_model([MATMUL], [tensor]))


WHOLE = {
    "sums": sums_onnx(),
    "conditional": onnx_model([conditional(WEIGHT), MATMUL]),
    "its own function": model_with_function(function([constant(WEIGHT), MATMUL])),
    "microsoft's operators": onnx_model([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]),
}


@pytest.mark.parametrize("model", WHOLE.values(), ids=WHOLE.keys())
def test_guard_lets_whole_models_pass(model: bytes) -> None:
    assert verdict(model) == "whole"


def test_guard_refuses_operators_of_a_custom_domain_and_names_the_allowed() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("evil.ops", 1)]
    model = onnx_model([helper.make_node("Run", ["x"], ["y"], domain="evil.ops")], opset_imports=imports)
    with pytest.raises(BackendFailed, match=r"operators of domain 'evil.ops'; allowed are '', 'ai.onnx'"):
        refuse_outside_references(model)


def test_guard_refuses_a_custom_operator_inside_a_function() -> None:
    model = model_with_function(function([helper.make_node("Run", ["x"], ["y"], domain="evil.ops")]))
    with pytest.raises(BackendFailed, match=r"evil[.]ops"):
        refuse_outside_references(model)


@pytest.mark.parametrize("content", [b"\xff", b"\x07", b"\x3a\xff\xff\xff\xff\x0f", b"not an onnx file at all"])
def test_guard_refuses_what_is_no_protobuf(content: bytes) -> None:
    with pytest.raises(BackendFailed, match="not a readable ONNX model"):
        refuse_outside_references(content)


def test_guard_refuses_a_file_cut_short_inside_its_graph() -> None:
    model = sums_onnx()
    at = model.index(b"weight")
    with pytest.raises(BackendFailed, match="runs past the end"):
        refuse_outside_references(model[:at])


def test_guard_refuses_endless_nesting() -> None:
    content = b""
    for _ in range(100):  # a graph in an attribute in a node in a graph
        for key in (0x32, 0x2A, 0x0A):
            content = bytes([key]) + varint(len(content)) + content
    with pytest.raises(BackendFailed, match="nested more than 64 deep"):
        refuse_outside_references(b"\x3a" + varint(len(content)) + content)


def test_guard_refuses_numbers_that_runtimes_would_cut_to_another_field() -> None:
    graph = onnx.load_from_string(onnx_model([MATMUL], [outside()])).graph.SerializeToString()
    disguised = varint((1 << 32) | 0x3A) + varint(len(graph)) + graph  # 0x3A is the graph's key
    with pytest.raises(BackendFailed, match="field key"):
        refuse_outside_references(disguised)


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


@given(st.binary(max_size=200))
def test_guard_ends_on_any_bytes_with_a_verdict(content: bytes) -> None:
    assert "whole" in verdict(content) or "model" in verdict(content)


def verdict(model: bytes) -> str:
    try:
        refuse_outside_references(model)
    except BackendFailed as error:
        return str(error)
    return "whole"


def test_operators_are_found_inside_branches_too() -> None:
    content = onnx_model([conditional(WEIGHT), MATMUL])
    assert refuse_outside_references(content) == {"If", "Constant", "MatMul"}
