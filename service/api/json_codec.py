"""The JSON part of an infer request: text in, typed structure out, with every name and count checked.

Memory: tensor data and parameters stay spans of the body until something asks for them, so that reading the structure
costs a small multiple of the bytes outside the data.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from service.api.json_text import check_no_duplicate_keys, check_structure, read
from service.api.names import check_tensor_names
from service.domain.errors import InvalidRequest

MAX_PARAMETERS_BYTES: Final = 65536
MAX_SHAPE_BYTES: Final = 1024
MAX_UNREAD_KEYS: Final = 8192

_EMPTY: Final = msgspec.Raw()
_Datatype = Annotated[str, msgspec.Meta(max_length=16)]


class WireInput(msgspec.Struct, gc=False):
    """One input as JSON carries it; all but the names is undecoded text, empty where absent."""

    name: str
    shape: msgspec.Raw
    datatype: _Datatype
    parameters: msgspec.Raw = _EMPTY
    data: msgspec.Raw = _EMPTY


class WireOutput(msgspec.Struct, gc=False):
    """One requested output as JSON carries it."""

    name: str
    parameters: msgspec.Raw = _EMPTY


class WireRequest(msgspec.Struct, gc=False):
    """An infer request as JSON carries it."""

    inputs: list[WireInput]
    id: str | None = None
    outputs: list[WireOutput] | None = None
    parameters: msgspec.Raw = _EMPTY


Parameters = dict[str, Any]

_decode_request = msgspec.json.Decoder(WireRequest).decode
_decode_shape = msgspec.json.Decoder(tuple[int, ...]).decode
_decode_parameters = msgspec.json.Decoder(dict[str, Any] | None).decode


def decode_wire_request(text: bytes) -> WireRequest:
    """Read the JSON of an infer request.

    Raises:
        InvalidRequest: It is not the JSON of one; the message names the element.
    """
    check_structure(text)
    request = read(_decode_request, text, "the request is not an inference request")
    check_tensor_names("input", [tensor.name for tensor in request.inputs])
    if request.outputs:
        check_tensor_names("requested output", [output.name for output in request.outputs])
    if not request.inputs:
        raise InvalidRequest("the request has no inputs; at least one is needed")
    _check_keys(text, request)
    return request


def decode_shape(raw: msgspec.Raw, name: str) -> tuple[int, ...]:
    """Read the shape of an input.

    Raises:
        InvalidRequest: It is no array of whole numbers, or longer than any real one.
    """
    text = memoryview(raw)
    if len(text) > MAX_SHAPE_BYTES:
        raise InvalidRequest(
            f"the shape of input '{name}' takes {len(text)} bytes; at most {MAX_SHAPE_BYTES} are allowed"
        )
    shape = _known_shape(bytes(text))
    return read(_decode_shape, text, f"the shape of input '{name}'") if shape is None else shape


@lru_cache(maxsize=1024)
def _known_shape(text: bytes) -> tuple[int, ...] | None:
    """Return a shape that its text was seen to be before; models are asked with few shapes, many times."""
    try:
        return _decode_shape(text)
    except (ValueError, RecursionError):
        return None  # what is wrong is said where it is read


def decode_parameters(raw: msgspec.Raw, where: str) -> Parameters:
    """Read an object of parameters; absent and ``null`` give an empty one.

    Raises:
        InvalidRequest: It is no JSON object, or longer than any real one.
    """
    if raw is _EMPTY:
        return {}
    text = memoryview(raw)
    if not text:
        return {}
    if len(text) > MAX_PARAMETERS_BYTES:
        message = f"the parameters of {where} take {len(text)} bytes; at most {MAX_PARAMETERS_BYTES} are allowed"
        raise InvalidRequest(message)
    parameters = read(_decode_parameters, text, f"the parameters of {where}") or {}
    if bytes(text).count(b":") > len(parameters):
        check_no_duplicate_keys(bytes(text))
    return parameters


def _check_keys(text: bytes, request: WireRequest) -> None:
    """Look for duplicate keys where the text has more colons than the keys that were read.

    Colons inside data belong to strings, because data has no objects, and numbers have none: where they do, reading
    them will say so. Those inside parameters are checked where the parameters are read.
    """
    outputs = request.outputs or []
    spans = [request.parameters, *(output.parameters for output in outputs)]
    keys = 1 + (request.id is not None) + (request.outputs is not None) + 3 * len(request.inputs) + len(outputs)
    for tensor in request.inputs:
        spans.append(tensor.parameters)
        if tensor.datatype == "BYTES":
            spans.append(tensor.data)
        else:
            keys += tensor.data is not _EMPTY
    for span in spans:
        content = bytes(span)
        if content:
            keys += 1 + content.count(b":")
    unread = text.count(b":") - keys
    if unread > MAX_UNREAD_KEYS:
        raise InvalidRequest(f"the request has more than {MAX_UNREAD_KEYS} keys that no inference request has")
    if unread > 0:
        check_no_duplicate_keys(_without_data(text, request))


def _without_data(text: bytes, request: WireRequest) -> bytes:
    """Return the JSON with a 0 in place of each array of data, so that looking at the rest stays cheap."""
    parts: list[bytes] = []
    start = 0
    for tensor in request.inputs:
        data = bytes(tensor.data)
        if data.startswith(b"["):
            end = text.index(data, start)
            parts += (text[start:end], b"0")
            start = end + len(data)
    return b"".join([*parts, text[start:]])
