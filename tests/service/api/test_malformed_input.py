"""One table of mistakes and attacks, each sent in every wire form that can carry it."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from tritonclient.grpc import service_pb2

from service.api import http_codec, proto_codec
from service.api.grpc_methods import parse
from service.api.http_codec import RequestHead
from service.domain.errors import InvalidRequest, NotSupported, PayloadTooLarge, TiergateError
from tests.malformed import BINARY_CASES, GOOD, JSON_CASES, PROTO_CASES, RAW_CASES, SHAPES, data, message, one

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = RequestHead("digits", "r1")


def decode_json(body: bytes) -> None:
    http_codec.decode_request(body, None, HEAD)


def decode_binary(header: dict[str, Any], raw: bytes) -> None:
    text = json.dumps(header).encode()
    http_codec.decode_request(text + raw, len(text), HEAD)


def decode_proto(message: Any) -> None:  # noqa: ANN401 - the stubs ship no types
    data = message.SerializeToString()
    proto_codec.decode_request(parse(service_pb2.ModelInferRequest, data), HEAD, None)


@pytest.mark.parametrize(("body", "expected"), [case[1:] for case in JSON_CASES], ids=[case[0] for case in JSON_CASES])
def test_json_is_refused(body: bytes, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected) as caught:
        decode_json(body)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("changes", "raw", "expected"), [case[1:] for case in BINARY_CASES], ids=[case[0] for case in BINARY_CASES]
)
def test_binary_is_refused(changes: dict[str, Any], raw: bytes, expected: str) -> None:
    header = {"name": "x", "shape": [2], "datatype": "FP32"} | changes
    with pytest.raises(InvalidRequest, match=expected):
        decode_binary({"inputs": [header]}, raw)


@pytest.mark.parametrize("length", [0, -1, 10_000])
def test_binary_is_refused_when_the_header_length_is_no_part_of_the_body(length: int) -> None:
    with pytest.raises(InvalidRequest, match=f"Inference-Header-Content-Length' is {length}"):
        http_codec.decode_request(one(), length, HEAD)


@pytest.mark.parametrize(("shape", "expected"), [case[1:] for case in SHAPES], ids=[case[0] for case in SHAPES])
def test_shape_is_refused_in_every_form(shape: list[int], expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        decode_json(one(shape=shape))
    with pytest.raises(InvalidRequest, match=expected):
        decode_binary({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32"} | binary(8)]}, b"\0" * 8)
    with pytest.raises(InvalidRequest, match=expected):
        decode_proto(message(shape=tuple(shape), raw=b"\0" * 8))


@pytest.mark.parametrize(
    ("datatype", "raw", "expected"), [case[1:] for case in RAW_CASES], ids=[case[0] for case in RAW_CASES]
)
def test_raw_tensor_is_refused_over_http_and_grpc(datatype: str, raw: bytes, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        decode_binary({"inputs": [{"name": "x", "shape": [2], "datatype": datatype} | binary(len(raw))]}, raw)
    with pytest.raises(InvalidRequest, match=expected):
        decode_proto(message(datatype, raw=raw))


@pytest.mark.parametrize(
    ("build", "expected"), [case[1:] for case in PROTO_CASES], ids=[case[0] for case in PROTO_CASES]
)
def test_proto_is_refused(build: Callable[[], Any], expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected) as caught:
        decode_proto(build())
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\xff" * 100_000])
def test_proto_is_refused_when_it_is_no_message(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"is no inference\.ModelInferRequest"):
        parse(service_pb2.ModelInferRequest, data)


def test_proto_of_many_empty_inputs_is_refused_before_it_unfolds() -> None:
    with pytest.raises(InvalidRequest, match="more than 8192 fields"):
        parse(service_pb2.ModelInferRequest, b"\x2a\x00" * 1_000_000)


def test_proto_of_many_parameters_is_refused_before_it_unfolds() -> None:
    proto = message(raw=b"\0" * 8)
    for index in range(9000):
        proto.inputs[0].parameters[f"p{index}"].bool_param = True
    with pytest.raises(InvalidRequest, match="more than 8192 fields"):
        decode_proto(proto)


def test_proto_of_many_small_integers_is_sent_to_raw_contents() -> None:
    proto = message("INT64", (2_000_000,))
    proto.inputs[0].contents.int64_contents.extend([0] * 2_000_000)
    with pytest.raises(PayloadTooLarge, match="send raw_input_contents"):
        decode_proto(proto)


def test_proto_of_a_large_raw_tensor_passes() -> None:
    decode_proto(message(shape=(100_000,), raw=b"\0" * 400_000))


def test_name_given_twice_is_refused_in_every_form() -> None:
    proto = message(raw=b"\0" * 8)
    proto.inputs.append(proto.inputs[0])
    proto.raw_input_contents.append(b"\0" * 8)
    decoders: list[Callable[[], None]] = [
        lambda: decode_json(json.dumps({"inputs": [GOOD, GOOD]}).encode()),
        lambda: decode_binary(
            {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32"} | binary(8)] * 2}, b"\0" * 16
        ),
        lambda: decode_proto(proto),
    ]
    for decode in decoders:
        with pytest.raises(InvalidRequest, match="input 'x' twice"):
            decode()


def test_shared_memory_and_classification_are_not_supported_in_any_form() -> None:
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    proto = message()
    proto.inputs[0].parameters["shared_memory_region"].string_param = "r"
    classed = message(raw=b"\0" * 8)
    classed.outputs.add(name="y").parameters["classification"].int64_param = 3
    decoders: list[Callable[[], None]] = [
        lambda: decode_json(one(parameters=region)),
        lambda: decode_json(json.dumps({"inputs": [GOOD], "outputs": [{"name": "y", "parameters": region}]}).encode()),
        lambda: decode_json(
            json.dumps({"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}).encode()
        ),
        lambda: decode_proto(proto),
        lambda: decode_proto(classed),
    ]
    for decode in decoders:
        with pytest.raises(NotSupported, match="does not offer"):
            decode()


def test_long_text_elements_are_sent_to_binary_data() -> None:
    with pytest.raises(PayloadTooLarge, match="send binary data"):
        decode_json(data("[" + '"ab",' * 2_000_000 + '"ab"]', "BYTES", "[2000001]"))


BOMBS: list[tuple[str, Callable[[], bytes]]] = [
    ("flat floats", lambda: data("[" + "0," * 999_999 + "0]", shape="[1000000]")),
    ("flat doubles", lambda: data("[" + "0," * 999_999 + "0]", "FP64", "[1000000]")),
    ("nested doubles", lambda: data("[" + "[0]," * 499_999 + "[0]]", "FP64", "[500000,1]")),
    ("wrong count", lambda: data("[" + "0," * 999_999 + "0]", "FP64", "[1000]")),
    ("long shape", lambda: data("[1]", shape="[" + "1," * 999_999 + "1]")),
    ("empty objects nobody reads", lambda: b'{"zz":[' + b"{}," * 700_000 + b"{}]}"),
    ("unknown keys", lambda: one()[:-1] + b',"zz":{' + b'"a":1,' * 300_000 + b'"b":1}}'),
    ("strings nobody reads", lambda: one()[:-1] + b',"zz":[' + b'"a:b",' * 300_000 + b'"c"]}'),
    ("long data beside an unknown key", lambda: data("[" + "0," * 999_999 + "0]", shape="[1000000]")[:-1] + b',"z":1}'),
    ("brackets", lambda: b"[" * 2_000_000),
    ("many inputs", lambda: b'{"inputs":[' + b'{"name":"","shape":[],"datatype":""},' * 50_000 + b"{}]}"),
    ("parameters", lambda: one()[:-1] + b',"parameters":{' + b'"a":{},' * 300_000 + b'"b":{}}}'),
]


@pytest.mark.parametrize("build", [case[1] for case in BOMBS], ids=[case[0] for case in BOMBS])
def test_body_costs_at_most_ten_times_its_bytes(build: Callable[[], bytes]) -> None:
    body = build()
    tracemalloc.start()
    try:
        decode_json(body)
    except TiergateError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= 10 * len(body)


def test_elements_keep_their_order_when_long_data_is_read_in_pieces() -> None:
    count = 50_000
    body = data(json.dumps([math.sqrt(index) for index in range(count)]), "FP64", f"[{count}]")
    array = http_codec.decode_request(body, None, HEAD).inputs[0].data
    assert array.tolist() == [math.sqrt(index) for index in range(count)]


def test_error_names_the_element_when_long_data_is_read_in_pieces() -> None:
    body = data("[" + "1," * 60_000 + "true]", shape="[60001]")
    with pytest.raises(InvalidRequest, match=r"data\[60000\]: Expected `float`, got `bool`"):
        decode_json(body)


def binary(size: int) -> dict[str, Any]:
    return {"parameters": {"binary_data_size": size}}
