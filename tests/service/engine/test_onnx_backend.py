from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.domain.errors import BackendFailed
from service.domain.tensors import TensorSpec
from service.engine.backends.onnx import OnnxBackend
from tests.builders import sums_onnx

X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 1))


def identity_onnx(element_type: int) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", element_type, ["rows"])],
        [helper.make_tensor_value_info("y", element_type, ["rows"])],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    content: bytes = model.SerializeToString()
    return content


def test_backend_computes_a_batch() -> None:
    (outputs,) = OnnxBackend(sums_onnx(2.0), [X], [Y], {}).run({"x": np.ones((3, 4), dtype=np.float32)})
    assert outputs.tolist() == [[8.0]] * 3


def test_backend_does_not_keep_the_file_beside_its_weights() -> None:
    content = sums_onnx(2.0)
    references = sys.getrefcount(content)
    backend = OnnxBackend(content, [X], [Y], {})
    assert sys.getrefcount(content) == references
    backend.run({"x": np.ones((1, 4), dtype=np.float32)})


def test_backend_is_freed_when_the_last_reference_goes() -> None:
    backend = OnnxBackend(sums_onnx(), [X], [Y], {})
    alive = weakref.ref(backend._session)
    gc.disable()  # what was loaded at the start is frozen: the collector would not find it
    try:
        del backend
        assert alive() is None
    finally:
        gc.enable()


def test_backend_carries_bytes_as_bytes_both_ways() -> None:
    specs = [TensorSpec("x", "BYTES", (-1,))], [TensorSpec("y", "BYTES", (-1,))]
    backend = OnnxBackend(identity_onnx(TensorProto.STRING), *specs, {})
    (outputs,) = backend.run({"x": np.array([b"a", "ü".encode()], dtype=np.object_)})
    assert outputs.tolist() == [b"a", "ü".encode()]


def test_backend_fails_on_a_shape_that_the_model_does_not_take() -> None:
    with pytest.raises(BackendFailed, match="the runtime failed"):
        OnnxBackend(sums_onnx(), [X], [Y], {}).run({"x": np.ones((1, 5), dtype=np.float32)})


@pytest.mark.parametrize(
    "option",
    ["session.load_model_format", "ep.context_file_path", "session.model_external_initializers_file_folder_path"],
)
def test_backend_refuses_options_that_are_not_listed(option: str) -> None:
    with pytest.raises(BackendFailed, match=f"session option {option} is not allowed; allowed are"):
        OnnxBackend(sums_onnx(), [X], [Y], {option: "1"})


def test_backend_takes_listed_options() -> None:
    assert OnnxBackend(sums_onnx(), [X], [Y], {"session.disable_prepacking": "1"}).run(
        {"x": np.zeros((1, 4), dtype=np.float32)}
    )[0].tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [([TensorSpec("z", "FP32", (-1, 4))], [Y]), ([X], [TensorSpec("y", "FP64", (-1, 1))]), ([X, X], [])],
)
def test_backend_refuses_another_interface_than_the_manifests(
    inputs: list[TensorSpec], outputs: list[TensorSpec]
) -> None:
    with pytest.raises(BackendFailed, match="the manifest declares"):
        OnnxBackend(sums_onnx(), inputs, outputs, {})


@pytest.mark.parametrize("content", [b"", b"garbage", sums_onnx()[:40]])
def test_backend_refuses_what_is_no_model(content: bytes) -> None:
    with pytest.raises(BackendFailed, match="the runtime refuses the model"):
        OnnxBackend(content, [X], [Y], {})
