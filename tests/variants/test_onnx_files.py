"""A file that was trained elsewhere is read, mended where that changes no answer, or refused in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.engine.onnx_guard import ALLOWED_DOMAINS
from variants.errors import RecipeError
from variants.interface import describe_interface
from variants.runtime import open_session, run_logits
from variants.sources import onnx_files
from variants.sources.onnx_files import read_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WEIGHTS = np.arange(8, dtype=np.float32).reshape(4, 2)
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc1")


def value(name: str, shape: Sequence[str | int | None], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(*nodes: onnx.NodeProto, **changes: Any) -> onnx.ModelProto:  # noqa: ANN401 - protobuf
    """Return ``y = x w`` with these nodes, inputs and outputs instead of its own where given."""
    inputs, outputs = (
        changes.pop("inputs", [value("x", ["rows", 4])]),
        changes.pop("outputs", [value("y", ["rows", 2])]),
    )
    graph = helper.make_graph(nodes or [MATMUL], "g", inputs, outputs, [onnx.numpy_helper.from_array(WEIGHTS, "w")])
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("my.ops", 1)]
    return helper.make_model(graph, ir_version=10, opset_imports=domains)


def write(folder: Path, content: onnx.ModelProto | bytes) -> Path:
    path = folder / "mine.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def refusal(path: Path, **fixed: int) -> str:
    with pytest.raises(RecipeError) as caught:
        read_model(path, fixed)
    return str(caught.value)


def test_a_plain_file_is_taken_as_it_computes(tmp_path: Path) -> None:
    rows = np.ones((3, 4), dtype=np.float32)
    assert np.allclose(run_logits(read_model(write(tmp_path, model()), {}), rows), rows @ WEIGHTS)


def test_allowed_domains_are_the_gateways() -> None:
    assert set(onnx_files.ALLOWED_DOMAINS) == ALLOWED_DOMAINS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer.*git lfs pull"),
        (b"\x08\x0a\x12", "is not an ONNX file, or was cut off"),
        (b"", "is not an ONNX file, or is an empty one"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_model(write(tmp_path, content), {})


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.onnx': No such file or directory" in refusal(tmp_path / "nowhere.onnx")


def test_a_foreign_operator_is_refused_by_its_node(tmp_path: Path) -> None:
    node = helper.make_node("Magic", ["x"], ["y"], name="trick", domain="my.ops")
    said = refusal(write(tmp_path, model(node)))
    assert said.startswith(f"node 'trick' of '{tmp_path / 'mine.onnx'}' uses operator 'Magic' of domain 'my.ops'")


def test_an_operator_that_the_opset_lacks_is_refused_by_its_node(tmp_path: Path) -> None:
    said = refusal(write(tmp_path, model(helper.make_node("Foo", ["x"], ["y"], name="bar"))))
    assert "node 'bar'" in said
    assert "uses operator 'Foo', which ONNX opset 18 does not have" in said


def test_an_operator_inside_a_branch_is_found(tmp_path: Path) -> None:
    inner = helper.make_node("Magic", ["x"], ["z"], name="hidden", domain="my.ops")
    branch = helper.make_graph([inner], "b", [], [value("z", ["rows", 4])])
    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch, else_branch=branch)
    assert "node 'hidden'" in refusal(write(tmp_path, model(node)))


def test_a_graph_that_does_not_hold_together_is_refused(tmp_path: Path) -> None:
    said = refusal(write(tmp_path, model(helper.make_node("MatMul", ["x", "nothing"], ["y"], name="fc1"))))
    assert "is not a valid ONNX model" in said
    assert "fc1" in said or "nothing" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": [value("x", ["rows", 4], TensorProto.STRING)]}, "input 'x' of .* takes text"),
        ({"inputs": [value("x", [])]}, "input 'x' of .* has no batch axis"),
        ({"inputs": [value("x", ["rows", "length"])]}, r"axis 1 \('length'\) of input 'x' .* --fix length=128"),
        ({"outputs": [value("y", ["rows", 2], TensorProto.INT64)]}, "has no output of real numbers, only y"),
    ],
)
def test_an_interface_that_cannot_be_served_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_model(write(tmp_path, model(**changes)), {})


def test_a_map_as_output_is_refused_by_the_node_that_makes_it(tmp_path: Path) -> None:
    zipped = helper.make_node("ZipMap", ["x"], ["y"], name="zip", domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("y", helper.make_sequence_type_proto(entry))
    said = refusal(write(tmp_path, model(zipped, outputs=[output])))
    assert "output 'y' of" in said
    assert "made by node 'zip' (ZipMap)" in said
    assert "{'zipmap': False}" in said


def test_an_axis_is_fixed_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, model(inputs=[value("x", ["rows", "length"])]))
    inputs, _ = describe_interface(read_model(path, {"length": 4}))
    assert inputs[0].shape == (-1, 4)
    assert "has no axis 'width' to fix; its axes beside the batch are: length" in refusal(path, width=4)


def test_a_batch_of_one_is_freed_where_the_graph_does_not_need_it(tmp_path: Path) -> None:
    fixed = model(inputs=[value("x", [1, 4])], outputs=[value("y", [1, 2])])
    assert run_logits(read_model(write(tmp_path, fixed), {}), np.ones((5, 4), dtype=np.float32)).shape == (5, 2)


def test_a_batch_that_the_graph_fixes_is_refused(tmp_path: Path) -> None:
    shape = onnx.numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "shape")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Reshape", ["h", "shape"], ["y"])]
    stuck = model(*nodes, inputs=[value("x", [1, 4])], outputs=[value("y", [1, 2])])
    stuck.graph.initializer.append(shape)
    assert "input 'x' of" in (said := refusal(write(tmp_path, stuck)))
    assert "takes exactly 1 rows at once; export it with a batch of any size" in said


def test_weights_beside_the_file_are_taken_in_and_missed_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    onnx.save_model(model(), path, save_as_external_data=True, location="mine.data", size_threshold=0)
    rows = np.ones((1, 4), dtype=np.float32)
    assert np.allclose(run_logits(read_model(path, {}), rows), rows @ WEIGHTS)
    (tmp_path / "mine.data").unlink()
    assert "keeps weight 'w' in 'mine.data', which is not beside it" in refusal(path)


def test_weights_are_not_read_from_elsewhere(tmp_path: Path) -> None:
    outside = model()
    tensor = outside.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    assert "only a file beside it is read" in refusal(write(tmp_path, outside))


def test_the_first_output_of_real_numbers_comes_first(tmp_path: Path) -> None:
    nodes = [MATMUL, helper.make_node("ArgMax", ["y"], ["label"], axis=1)]
    both = model(*nodes, outputs=[value("label", ["rows", 1], TensorProto.INT64), value("y", ["rows", 2])])
    session = open_session(read_model(write(tmp_path, both), {}))
    assert [output.name for output in session.get_outputs()] == ["y", "label"]
