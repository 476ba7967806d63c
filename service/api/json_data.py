"""Tensor data as JSON: flat or nested, row-major.

Reading is typed per datatype, so that an error names the element. Two tricks keep it fast and small:

* Nested data is checked by its skeleton. What is left of the text without digits must be exactly the brackets and
  commas that the shape prescribes; after that the inner brackets carry nothing and are deleted, and the elements are
  read as one flat list.
* Long lists of numbers are read in pieces, because a Python list of floats takes 32 bytes for an element that takes
  two bytes of text. Long lists of floats never become one: simdjson (Langdale and Lemire 2019) reads them into an
  array of doubles, three times as fast; what it refuses is read again as a list, for the error's place.

FP16 and BF16 have no JSON form in the protocol. A NaN or an infinity in an output becomes ``null``: bare ``NaN`` is no
JSON, and clients that put the list into a numpy float array read ``null`` as NaN. Binary data carries both exactly.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
import simdjson

from service.api.json_text import explain
from service.domain.errors import InvalidRequest, PayloadTooLarge
from service.domain.tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from service.domain.tensors import Tensor

_PIECE: Final = 1 << 16
_MAX_TEXT_BYTES: Final = 8 << 20
_INDEX: Final = re.compile(r" - at `\$((?:\[\d+\])+)`$")
_NUMBER_CHARACTERS: Final = b"0123456789+-.eE \t\r\ntruefals"
_FLOAT32_LIMIT: Final = 3.4028235677973366e38  # from here on, rounding to float32 gives infinity
_BINARY_ONLY: Final = ("FP16", "BF16")
_FLOATS: Final = ("FP32", "FP64")


def _integers(bits: int, *, signed: bool) -> Any:  # noqa: ANN401 - a type made at run time
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return list[Annotated[int, msgspec.Meta(ge=low, le=high)]]


_DECODERS: Final[dict[str, Callable[[bytes], list[Any]]]] = {
    "BOOL": msgspec.json.Decoder(list[bool]).decode,
    "FP32": msgspec.json.Decoder(
        list[Annotated[float, msgspec.Meta(gt=-_FLOAT32_LIMIT, lt=_FLOAT32_LIMIT)]],
    ).decode,
    "FP64": msgspec.json.Decoder(list[float]).decode,
    # msgspec has no bounds above int64; numpy refuses what is larger.
    "UINT64": msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0)]]).decode,
    "BYTES": msgspec.json.Decoder(list[str]).decode,
} | {
    f"{prefix}INT{bits}": msgspec.json.Decoder(_integers(bits, signed=not prefix)).decode
    for prefix, bits in (("", 8), ("", 16), ("", 32), ("", 64), ("U", 8), ("U", 16), ("U", 32))
}


def decode_data(text: bytes, datatype: str, shape: tuple[int, ...], path: str) -> NDArray[Any]:
    """Read the ``data`` of one tensor.

    Args:
        text: The JSON array.
        datatype: The protocol's datatype, known to exist.
        shape: The tensor's shape, known to be valid.
        path: Where the data stands, for errors, such as ``$.inputs[0].data``.

    Raises:
        InvalidRequest: The data does not fit the datatype or the shape; the message names the element.
        PayloadTooLarge: Text elements over 8 MiB, which binary data carries at a fraction of the memory.
    """
    if datatype in _BINARY_ONLY:
        raise InvalidRequest(f"{path}: {datatype} cannot travel in JSON; send it as binary data or over gRPC")
    if datatype == "BYTES":
        return _decode_strings(text, shape, path)
    if text.find(b"[", 1) >= 0:
        _check_skeleton(text, datatype, shape, path)
        return _decode_numbers(b"[%b]" % text.translate(None, b"[]"), datatype, shape, (path, shape))
    return _decode_numbers(text, datatype, shape, (path, ()))


def encode_data(tensor: Tensor) -> list[Any]:
    """Return a tensor's elements, flat and row-major, as JSON can carry them.

    Raises:
        InvalidRequest: The datatype has no JSON form, or a BYTES element is not UTF-8.
    """
    if tensor.datatype in _BINARY_ONLY:
        message = f"output '{tensor.name}' is {tensor.datatype}, which cannot travel in JSON; ask for binary data"
        raise InvalidRequest(message)
    elements: list[Any] = tensor.data.ravel().tolist()
    if tensor.datatype != "BYTES":
        return elements
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError:
        message = f"output '{tensor.name}' holds bytes that are not UTF-8; ask for binary data"
        raise InvalidRequest(message) from None


def _decode_numbers(
    text: bytes, datatype: str, shape: tuple[int, ...], where: tuple[str, tuple[int, ...]]
) -> NDArray[Any]:
    count = math.prod(shape)
    if len(text) <= _PIECE:
        array = _decode_piece(text, datatype, 0, where)
        _check_count(len(array), count, shape, where[0])
        return array.reshape(shape)
    if count > len(text):
        raise _miscounted(f"at most {len(text) // 2}", count, shape, where[0])
    array, filled, start = np.empty(count, DTYPES[datatype]), 0, text.index(b"[") + 1
    end, floats = text.rindex(b"]"), _Floats() if datatype in _FLOATS else None
    while True:
        comma = text.find(b",", start + _PIECE, end)
        stop = end if comma < 0 else comma
        part = b"[%b]" % text[start:stop]
        piece = floats.read(part) if floats else None
        if piece is None:
            piece = _decode_piece(part, datatype, filled, where)
        if filled + len(piece) > count:
            raise _miscounted(f"more than {count}", count, shape, where[0])
        if not len(piece) and (filled or comma >= 0):
            raise InvalidRequest(f"{where[0]}: a comma has no element on one of its sides")
        array[filled : filled + len(piece)] = piece
        filled += len(piece)
        if comma < 0:
            break
        start = stop + 1
    _check_count(filled, count, shape, where[0])
    return array.reshape(shape)


class _Floats:
    """Reads flat lists of floats within float32's range; one for each long list, whose buffers it keeps."""

    def __init__(self) -> None:
        self._parse = simdjson.Parser().parse

    def read(self, text: bytes) -> NDArray[np.float64] | None:
        """Return the list as doubles, or ``None`` where something else is to say what is wrong with it."""
        try:
            found = self._parse(text)
            # A list within the list would be read as if it were flat; whoever calls has seen that there is none.
            values = np.frombuffer(found.as_buffer(of_type="d"), np.float64)  # type: ignore[union-attr]
        except (ValueError, TypeError, RuntimeError, AttributeError):
            self._parse = simdjson.Parser().parse  # the one before is held by what it has found
            return None
        is_sound = len(values) and values.min() > -_FLOAT32_LIMIT and values.max() < _FLOAT32_LIMIT
        return values if is_sound else None


def _decode_piece(text: bytes, datatype: str, offset: int, where: tuple[str, tuple[int, ...]]) -> NDArray[Any]:
    try:
        elements = _DECODERS[datatype](text)
        return np.fromiter(elements, DTYPES[datatype], len(elements))  # a quarter faster than np.array
    except ValueError as error:
        raise InvalidRequest(_located(error, text, offset, where)) from None
    except OverflowError:
        values = _DECODERS[datatype](text)
        index = next(index for index, value in enumerate(values) if value >= 2**64)
        large = ValueError(f"Expected `int` <= {2**64 - 1} - at `$[{index}]`")
        raise InvalidRequest(_located(large, text, offset, where)) from None


def _located(error: ValueError, text: bytes, offset: int, where: tuple[str, tuple[int, ...]]) -> str:
    """Return the error's message with the element's place in the request."""
    path, shape = where
    message = explain(error, text)
    found = _INDEX.search(message)
    if found is None:
        return f"{path}: {message}"
    flat = offset + int(found[1].strip("[]"))
    index = np.unravel_index(flat, shape) if shape else (flat,)
    place = "".join(f"[{int(step)}]" for step in index)
    return f"{path}{place}: {message[: found.start()]}"


def _check_count(have: int, want: int, shape: tuple[int, ...], path: str) -> None:
    if have != want:
        raise _miscounted(str(have), want, shape, path)


def _miscounted(have: str, want: int, shape: tuple[int, ...], path: str) -> InvalidRequest:
    return InvalidRequest(f"{path} has {have} elements; shape {list(shape)} needs {want}")


def _check_skeleton(text: bytes, datatype: str, shape: tuple[int, ...], path: str) -> None:
    skeleton = text.translate(None, _NUMBER_CHARACTERS)
    length = 0
    for dim in reversed(shape):
        length = 2 + dim * length + dim - 1
    if len(skeleton) == length and skeleton == _skeleton(shape):
        return
    if len(text) <= _PIECE:  # for the sake of a message that names the element
        try:
            _nested_decoder(datatype, len(shape))(text)
        except ValueError as error:
            raise InvalidRequest(_located_nested(error, path)) from None
    raise InvalidRequest(f"{path} is not nested as shape {list(shape)} says; nest it row by row, or send it flat")


def _located_nested(error: ValueError, path: str) -> str:
    message = str(error)
    found = _INDEX.search(message)
    return f"{path}: {message}" if found is None else f"{path}{found[1]}: {message[: found.start()]}"


def _skeleton(shape: tuple[int, ...]) -> bytes:
    row = b""
    for dim in reversed(shape):
        row = b"[%b]" % ((row + b",") * dim)[:-1]
    return row


def _decode_strings(text: bytes, shape: tuple[int, ...], path: str) -> NDArray[Any]:
    if len(text) > _MAX_TEXT_BYTES:
        message = (
            f"{path} is {len(text)} bytes of text elements; at most {_MAX_TEXT_BYTES} go as JSON, send binary data"
        )
        raise PayloadTooLarge(message)
    try:
        values: list[Any] = _DECODERS["BYTES"](text)
    except ValueError:
        values = _flatten(_decode_nested_strings(text, shape, path), shape, path)
    count = math.prod(shape)
    _check_count(len(values), count, shape, path)
    array = np.empty(count, np.object_)
    array[:] = [value.encode() for value in values]
    return array.reshape(shape)


def _decode_nested_strings(text: bytes, shape: tuple[int, ...], path: str) -> list[Any]:
    try:
        return _nested_decoder("BYTES", len(shape))(text)
    except (ValueError, RecursionError) as error:
        message = explain(error, text)
        raise InvalidRequest(_located_nested(ValueError(message), path)) from None


def _flatten(values: list[Any], shape: tuple[int, ...], path: str) -> list[Any]:
    """Return nested rows as one list, having seen that every row is as long as the shape says."""
    matches = len(values) == shape[0]
    for dim in shape[1:]:
        matches = matches and all(len(row) == dim for row in values)
        values = [value for row in values for value in row]
    if not matches:
        raise InvalidRequest(f"{path} is not nested as shape {list(shape)} says")
    return values


@lru_cache(maxsize=64)
def _nested_decoder(datatype: str, rank: int) -> Callable[[bytes], list[Any]]:
    kind: Any = {"BOOL": bool, "BYTES": str, "FP32": float, "FP64": float}.get(datatype, int)
    for _ in range(rank):
        kind = list[kind]
    return msgspec.json.Decoder(kind).decode
