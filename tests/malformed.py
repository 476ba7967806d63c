"""One table of mistakes and attacks in requests, as every wire form can carry them; nothing here is sent yet.

Each case is its name, the payload, and a pattern that the error message must match.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import service_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}


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
