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

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = RequestHead("digits", "r1")
GOOD = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}


def decode_json(body: bytes) -> None:
    http_codec.decode_request(body, None, HEAD)


def decode_binary(header: dict[str, Any], raw: bytes) -> None:
    text = json.dumps(header).encode()
    http_codec.decode_request(text + raw, len(text), HEAD)


def decode_proto(message: Any) -> None:  # noqa: ANN401 - the stubs ship no types
    data = message.SerializeToString()
    proto_codec.decode_request(parse(service_pb2.ModelInferRequest, data), HEAD, None)


def one(**changes: Any) -> bytes:  # noqa: ANN401
    return json.dumps({"inputs": [GOOD | changes]}).encode()


def data(text: str, datatype: str = "FP32", shape: str = "[1]") -> bytes:
    return f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{text}}}]}}'.encode()


JSON_CASES: list[tuple[str, bytes, str]] = [
    ("empty body", b"", "truncated"),
    ("no object", b"[]", "Expected `object`, got `array`"),
    ("no inputs", b"{}", "missing required field `inputs`"),
    ("zero inputs", b'{"inputs":[]}', "has no inputs"),
    ("bytes after the end", one() + b"x", "trailing characters"),
    ("byte order mark", b"\xef\xbb\xbf" + one(), "malformed"),
    ("broken UTF-8", data('["\xff"]'.encode("latin-1").decode("latin-1"), "BYTES").decode().encode("latin-1"), "UTF-8"),
    ("nested too deep", data("[" * 101 + "1" + "]" * 101), "nested more than 100 deep"),
    ("nested far too deep", b'{"inputs":' + b"[" * 100_000, "nested more than 100 deep"),
    ("nested too deep where nobody looks", b'{"zz":' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}", "nested more than"),
    (
        "deep behind brackets in a string",
        b'{"zz":"' + b"]" * 500 + b'","a":' + b"[" * 150 + b"]" * 150 + b"}",
        "nested",
    ),
    ("5,000 digits", data(f"[{'9' * 5000}]"), r"data\[0\].*out of range"),
    (
        "5,000 digits in the shape",
        data("[1]", shape=f"[{'9' * 5000}]"),
        "takes 5002 bytes",
    ),
    ("2^64+2 in the shape", data("[1]", shape=f"[1, {2**64 + 2}]"), "more than 2147483648 elements"),
    (
        "boolean in the shape",
        data("[1]", shape="[true]"),
        r"shape of input 'x': Expected `int`, got `bool` - at `\$\[0\]`",
    ),
    ("NaN", data("[NaN]"), "NaN and infinities"),
    ("Infinity", data("[-Infinity]"), "NaN and infinities"),
    ("1e999", data("[1e999]"), r"data\[0\].*out of range"),
    ("FP32 overflow", data("[1, 1e39]", shape="[2]"), r"\$.inputs\[0\].data\[1\].*float"),
    ("FP32 negative overflow", data("[-1e39]"), r"data\[0\]"),
    ("lone surrogate", data('["\\ud800"]', "BYTES"), "lone surrogate"),
    ("boolean as number", data("[1, true]", shape="[2]"), r"data\[1\]: Expected `float`, got `bool`"),
    ("text as number", data('[1, "2"]', shape="[2]"), r"data\[1\]: Expected `float`, got `str`"),
    ("null as number", data("[null]"), r"data\[0\]: Expected `float`, got `null`"),
    ("number as boolean", data("[1]", "BOOL"), r"data\[0\]: Expected `bool`, got `int`"),
    ("number as text", data("[1]", "BYTES"), r"data\[0\]: Expected `str`, got `int`"),
    ("fraction as integer", data("[1.5]", "INT32"), r"data\[0\]: Expected `int`, got `float`"),
    ("2^64+2 as INT64", data(f"[0, {2**64 + 2}]", "INT64", "[2]"), r"data\[1\]: Expected `int` <= 9223372036854775807"),
    ("2^64+2 as UINT64", data(f"[0, {2**64 + 2}]", "UINT64", "[2]"), r"data\[1\]: .*<= 18446744073709551615"),
    ("INT8 overflow", data("[-129]", "INT8"), r"data\[0\]: Expected `int` >= -128"),
    ("negative UINT8", data("[-1]", "UINT8"), r"data\[0\]: Expected `int` >= 0"),
    ("nested element", data("[[1, 2], [3, true]]", shape="[2, 2]"), r"data\[1\]\[1\]: Expected `float`, got `bool`"),
    ("nested text", data('[["a"], [1]]', "BYTES", "[2, 1]"), r"data\[1\]\[0\]: Expected `str`, got `int`"),
    ("ragged", data("[[1, 2], [3]]", shape="[2, 2]"), "not nested as shape"),
    ("ragged text", data('[["a", "b"], ["c"]]', "BYTES", "[2, 2]"), "not nested as shape"),
    ("nested in the wrong order", data("[[1, 2, 3], [4, 5, 6]]", shape="[3, 2]"), "not nested as shape"),
    ("too deep for the shape", data("[[[1]]]", shape="[1, 1]"), r"Expected `float`, got `array`"),
    ("data is no array", data("5"), "Expected `array`, got `int`"),
    ("data is an object", data('{"a": 1}'), "Expected `array`, got `object`"),
    ("too few elements", data("[1]", shape="[2]"), r"has 1 elements; shape \[2\] needs 2"),
    ("too many elements", data("[1, 2, 3]", shape="[2]"), r"has 3 elements; shape \[2\] needs 2"),
    ("huge shape, little data", data("[1]", shape="[1073741824]"), "has 1 elements"),
    ("no data", one(data=None).replace(b', "data": null', b""), "has no data"),
    ("FP16 in JSON", data("[1]", "FP16"), "FP16 cannot travel in JSON; send it as binary data"),
    ("BF16 in JSON", data("[1]", "BF16"), "BF16 cannot travel in JSON"),
    ("key twice", b'{"inputs":[],' + one()[1:], "key 'inputs' twice"),
    ("key twice in an input", one().replace(b'"name": "x"', b'"name": "y", "name": "x"'), "key 'name' twice"),
    ("knob twice", one()[:-1] + b',"parameters":{"min_accuracy":0,"min_accuracy":1}}', "'min_accuracy' twice"),
    ("parameters no object", one()[:-1] + b',"parameters":[1]}', "the parameters of the request"),
    ("parameters too long", one()[:-1] + b',"parameters":{"a":"' + b"x" * 70_000 + b'"}}', "at most 65536"),
    ("id no text", one()[:-1] + b',"id":5}', r"Expected `str \| null`, got `int`"),
    ("id too long", one()[:-1] + b',"id":"' + b"x" * 257 + b'"}', "id has 257 characters"),
    ("id with control characters", one()[:-1] + b',"id":"a\\u0000b"}', "control characters"),
    ("flag no boolean", one()[:-1] + b',"parameters":{"binary_data_output":1}}', "'binary_data_output' is 1"),
    ("binary size without binary data", one(parameters={"binary_data_size": 8}), "both data and binary_data_size"),
]

BINARY_CASES: list[tuple[str, dict[str, Any], bytes, str]] = [
    ("short", {"parameters": {"binary_data_size": 8}}, b"\0" * 7, "only 7 bytes of binary data are left"),
    ("long", {"parameters": {"binary_data_size": 8}}, b"\0" * 9, "has 9 bytes of binary data; .* sum to 8"),
    ("size differs from shape", {"parameters": {"binary_data_size": 4}}, b"\0" * 4, r"shape \[2\] takes 8"),
    ("negative size", {"parameters": {"binary_data_size": -8}}, b"\0" * 8, "binary_data_size -8"),
    ("size as text", {"parameters": {"binary_data_size": "8"}}, b"\0" * 8, "binary_data_size '8'"),
    ("size as boolean", {"parameters": {"binary_data_size": True}}, b"\0" * 8, "binary_data_size True"),
]

SHAPES: list[tuple[str, list[int], str]] = [
    ("negative", [-1], "at least 1"),
    ("zero", [2, 0], "at least 1"),
    ("overflow", [16, 2**60 + 2], "more than 2147483648 elements"),
    ("too many dimensions", [1] * 17, "17 dimensions"),
]

RAW_CASES: list[tuple[str, str, bytes, str]] = [
    ("short", "FP32", b"\0" * 7, "has 7 bytes of data"),
    ("long", "FP32", b"\0" * 9, "has 9 bytes of data"),
    ("unknown datatype", "FP8", b"\0" * 2, "datatype 'FP8'; allowed are"),
    ("datatype that is a list's name", "list", b"\0" * 2, "datatype 'list'"),
    ("BOOL above 1", "BOOL", b"\0\2", "BOOL byte above 1"),
    ("BYTES without room for lengths", "BYTES", b"\0" * 7, "2 BYTES elements take at least 8"),
    ("BYTES past the end", "BYTES", b"\1\0\0\0a\2\0\0\0b", "element 1 runs past the end"),
    ("BYTES far past the end", "BYTES", b"\xff\xff\xff\xff\0\0\0\0", "element 0 runs past the end"),
    ("BYTES cut inside a length", "BYTES", b"\3\0\0\0abc\1\0", "element 1 runs past the end"),
    ("bytes after BYTES", "BYTES", b"\0\0\0\0\0\0\0\0\0", "1 bytes after its 2 elements"),
]


def message(datatype: str = "FP32", shape: tuple[int, ...] = (2,), raw: bytes | None = None) -> Any:  # noqa: ANN401
    request = service_pb2.ModelInferRequest(model_name="digits")
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def with_contents(datatype: str, field: str, values: list[Any]) -> Any:  # noqa: ANN401
    request = message(datatype)
    getattr(request.inputs[0].contents, field).extend(values)
    return request


def two_raws() -> Any:  # noqa: ANN401
    request = message(raw=b"\0" * 8)
    request.raw_input_contents.append(b"\0" * 8)
    return request


def both_forms() -> Any:  # noqa: ANN401
    request = with_contents("FP32", "fp32_contents", [1.0, 2.0])
    request.raw_input_contents.append(b"\0" * 8)
    return request


def long_name() -> Any:  # noqa: ANN401
    request = message(raw=b"\0" * 8)
    request.inputs[0].name = "n" * 1000
    return request


PROTO_CASES: list[tuple[str, Callable[[], Any], str]] = [
    ("no inputs", service_pb2.ModelInferRequest, "has no inputs"),
    ("more raw contents than inputs", two_raws, "2 raw_input_contents for 1 inputs"),
    ("contents and raw contents", both_forms, "both contents and raw_input_contents"),
    ("neither contents nor raw contents", message, "has 0 elements"),
    ("too few elements", lambda: with_contents("FP32", "fp32_contents", [1.0]), "has 1 elements"),
    (
        "wrong field",
        lambda: with_contents("FP32", "fp64_contents", [1.0, 2.0]),
        "has fp64_contents; FP32 goes into fp32",
    ),
    (
        "INT8 overflow",
        lambda: with_contents("INT8", "int_contents", [1, 128]),
        "element 1 is 128; INT8 allows -128 to 127",
    ),
    (
        "UINT16 overflow",
        lambda: with_contents("UINT16", "uint_contents", [1, 65536]),
        "element 1 is 65536; UINT16 allows 0 to 65535",
    ),
    ("typed FP16", lambda: message("FP16"), "FP16, which has no typed contents"),
    ("typed BF16", lambda: message("BF16"), "BF16, which has no typed contents"),
    ("long datatype", lambda: message("F" * 100_000, raw=b""), "datatype"),
    ("long name", long_name, "a name of 1000 characters"),
]


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
