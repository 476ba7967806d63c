from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import InferResult as GrpcResult
from tritonclient.grpc import service_pb2
from tritonclient.http import InferResult as HttpResult

from service.api import http_codec, proto_codec
from service.api.answers import Fixed
from service.api.binary_codec import encode_raw
from service.api.http_codec import RequestHead
from service.api.json_data import encode_data
from service.api.proto_answer import encode_response
from service.api.proto_message import read_message
from service.domain.inference import Answer, InferenceRequest, InferenceResponse, Reason, RequestedOutput
from service.domain.tensors import DTYPES, Tensor

HEAD = RequestHead("digits", "r1")
ANSWER = Answer("full", "full", Reason.WITHIN_BUDGET, 0.0, 0.0, 0.0, 0.0, 0.1, True, 0.9)
JSON_TYPES = sorted(set(DTYPES) - {"FP16", "BF16"})
TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
} | {f"{sign}INT{bits}": f"{sign.lower()}int_contents" for sign in ("", "U") for bits in (8, 16, 32)}

often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)


def tensors(datatypes: list[str], *, finite: bool, utf8: bool) -> st.SearchStrategy[Tensor]:
    def of(datatype: str) -> st.SearchStrategy[Tensor]:
        if datatype == "BYTES":
            element: Any = st.text(max_size=20).map(str.encode) if utf8 else st.binary(max_size=20)
            data = hnp.arrays(np.object_, shapes, elements=element)
        elif finite and datatype in ("FP32", "FP64"):
            width: Literal[32, 64] = 32 if datatype == "FP32" else 64
            finite_floats = st.floats(allow_nan=False, allow_infinity=False, width=width)
            data = hnp.arrays(DTYPES[datatype], shapes, elements=finite_floats)
        else:
            data = hnp.arrays(DTYPES[datatype], shapes)
        return data.map(lambda array: Tensor("x", datatype, array))

    return st.sampled_from(datatypes).flatmap(of)


def assert_same(have: np.ndarray[Any, Any], want: Tensor) -> None:
    assert have.shape == want.data.shape
    if want.datatype == "BYTES":
        assert have.tolist() == want.data.tolist()
    else:
        assert have.dtype == want.data.dtype
        assert have.tobytes() == want.data.tobytes()


def json_input(tensor: Tensor, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"name": "x", "shape": list(tensor.shape), "datatype": tensor.datatype, **more}


def respond(tensor: Tensor, *, binary: bool) -> HttpResult:
    request = InferenceRequest("digits", "r1", (), outputs=(RequestedOutput("x", binary),))
    response = InferenceResponse("digits", "1", "r1", (tensor,), ANSWER)
    body, length = http_codec.encode_response(request, response, "{}")
    return HttpResult.from_response_body(body, header_length=length)


@often
@given(tensors(JSON_TYPES, finite=True, utf8=True), st.booleans())
def test_json_request_carries_every_element(tensor: Tensor, nested: bool) -> None:
    elements = np.array(encode_data(tensor), dtype=object).reshape(tensor.shape)
    data = elements.tolist() if nested else elements.ravel().tolist()
    body = json.dumps({"inputs": [json_input(tensor, data=data)]}).encode()
    assert_same(http_codec.decode_request(body, None, HEAD).inputs[0].data, tensor)


@often
@given(tensors(JSON_TYPES, finite=True, utf8=True))
def test_json_response_carries_every_element(tensor: Tensor) -> None:
    read = respond(tensor, binary=False).as_numpy("x")
    if tensor.datatype == "BYTES":
        read = np.array([str(element).encode() for element in read.ravel()], object).reshape(read.shape)
    assert_same(read, tensor)


@often
@given(tensors(sorted(DTYPES), finite=False, utf8=False))
def test_binary_request_carries_every_element(tensor: Tensor) -> None:
    raw = encode_raw(tensor)
    head = json.dumps({"inputs": [json_input(tensor, parameters={"binary_data_size": len(raw)})]}).encode()
    assert_same(http_codec.decode_request(head + raw, len(head), HEAD).inputs[0].data, tensor)


@often
@given(tensors(sorted(set(DTYPES) - {"BF16"}), finite=False, utf8=False))
def test_binary_response_carries_every_element(tensor: Tensor) -> None:
    assert_same(respond(tensor, binary=True).as_numpy("x"), tensor)


@often
@given(tensors(sorted(DTYPES), finite=False, utf8=False))
def test_grpc_raw_request_carries_every_element(tensor: Tensor) -> None:
    message = service_pb2.ModelInferRequest(model_name="digits")
    message.inputs.add(name="x", datatype=tensor.datatype, shape=tensor.shape)
    message.raw_input_contents.append(encode_raw(tensor))
    assert_same(
        proto_codec.decode_request(read_message(message.SerializeToString()), HEAD, None).inputs[0].data, tensor
    )


@often
@given(tensors(sorted(TYPED_FIELDS), finite=False, utf8=False))
def test_grpc_typed_request_carries_every_element(tensor: Tensor) -> None:
    message = service_pb2.ModelInferRequest(model_name="digits")
    wire = message.inputs.add(name="x", datatype=tensor.datatype, shape=tensor.shape)
    getattr(wire.contents, TYPED_FIELDS[tensor.datatype]).extend(tensor.data.ravel().tolist())
    have = proto_codec.decode_request(read_message(message.SerializeToString()), HEAD, None).inputs[0].data
    if tensor.datatype in ("FP32", "FP64"):  # a NaN stays a NaN, though its payload may not survive Python floats
        np.testing.assert_array_equal(have, tensor.data)
    else:
        assert_same(have, tensor)


@often
@given(tensors(sorted(set(DTYPES) - {"BF16"}), finite=False, utf8=False))
def test_grpc_response_carries_every_element(tensor: Tensor) -> None:
    answer = encode_response(InferenceResponse("digits", "1", "r1", (tensor,), ANSWER), Fixed((), ()), ())
    assert_same(GrpcResult(service_pb2.ModelInferResponse.FromString(answer)).as_numpy("x"), tensor)


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BOOL"])
@pytest.mark.parametrize("nested", [False, True])
def test_json_request_carries_every_element_when_it_is_long(datatype: str, nested: bool) -> None:
    array = (np.arange(200_000).reshape(1000, 200) % 2).astype(DTYPES[datatype])
    data = array.tolist() if nested else array.ravel().tolist()
    body = json.dumps({"inputs": [json_input(Tensor("x", datatype, array), data=data)]}).encode()
    np.testing.assert_array_equal(http_codec.decode_request(body, None, HEAD).inputs[0].data, array)


def test_json_response_writes_null_when_a_float_is_not_finite() -> None:
    tensor = Tensor("x", "FP32", np.array([1.0, np.nan, np.inf], np.float32))
    result = respond(tensor, binary=False)
    assert result.get_output("x")["data"] == [1.0, None, None]
    np.testing.assert_array_equal(result.as_numpy("x"), np.array([1.0, np.nan, np.nan], np.float32))
