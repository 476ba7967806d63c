"""The bytes of a ``ModelInferResponse``, written without protobuf's objects.

An answer's parameters are a map of messages, and making those objects takes longer than all the rest of writing it.
What is the same in every answer of a variant is kept, and only numbers, tensors and ids are written anew. Tests hold
these bytes against protobuf's own reading of them.

Outputs always go as raw contents, because Triton's client reads nothing else. Numbers among the parameters go as text:
they would need ``double_param``, which KServe's and MLServer's copies of the protocol lack, and their clients fail on a
parameter with nothing set.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from service.api.binary_codec import encode_raw

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.api.answers import Fixed
    from service.domain.inference import InferenceResponse

_FIRST, _SECOND, _THIRD = 0x0A, 0x12, 0x1A
"""Tags of a message's first three fields, where they have a length: name, version and id; name, datatype and shape."""
_PARAMETER: Final = 0x22
_OUTPUT: Final = 0x2A
_RAW: Final = 0x32
_BOOL_PARAM: Final = b"\x08"
_STRING_PARAM: Final = 0x1A
_SHORT: Final = 0x80


def encode_response(response: InferenceResponse, fixed: Fixed, numbers: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the bytes of the ``ModelInferResponse``.

    Args:
        response: What it carries.
        fixed: What many answers have in common.
        numbers: Names and texts of those parameters that every answer has its own of.
    """
    parts = [_opening(response.model, response.version, fixed)]
    if response.id:
        parts.append(_field(_THIRD, response.id.encode()))
    parts += [_number(name, text) for name, text in numbers]
    parts += [_output(tensor.name, tensor.datatype, tensor.data.shape) for tensor in response.outputs]
    for tensor in response.outputs:
        raw = encode_raw(tensor)
        parts += (b"%c%b" % (_RAW, _varint(len(raw))), raw)
    return b"".join(parts)


def encode_stream_response(answer: bytes) -> bytes:
    """Return the bytes of the ``ModelStreamInferResponse`` that holds an answer."""
    return _field(_SECOND, answer)


@lru_cache(maxsize=256)
def _opening(model: str, version: str, fixed: Fixed) -> bytes:
    parts = [_field(_FIRST, model.encode()), _field(_SECOND, version.encode())]
    for name, text, kind in fixed.parameters:
        value = _BOOL_PARAM + bytes((text == "true",)) if kind is bool else _field(_STRING_PARAM, text.encode())
        parts.append(_field(_PARAMETER, _key(name) + _field(_SECOND, value)))
    return b"".join(parts)


def _number(name: str, text: bytes) -> bytes:
    """Return a parameter with a short name and a number's text, all of whose lengths are single bytes."""
    key, size = _key(name), len(text)
    return b"%c%c%b\x12%c\x1a%c%b" % (_PARAMETER, len(key) + size + 4, key, size + 2, size, text)


@lru_cache(maxsize=64)
def _key(name: str) -> bytes:
    return _field(_FIRST, name.encode())


@lru_cache(maxsize=1024)
def _output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join([_varint(dim) for dim in shape])
    content = _field(_FIRST, name.encode()) + _field(_SECOND, datatype.encode()) + _field(_THIRD, dims)
    return _field(_OUTPUT, content)


def _field(tag: int, content: bytes) -> bytes:
    return b"%c%b%b" % (tag, _varint(len(content)), content)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= _SHORT:
        digits.append(number & 0x7F | _SHORT)
        number >>= 7
    digits.append(number)
    return bytes(digits)
