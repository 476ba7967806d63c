"""An infer request's bytes in two parts: what it says, and the raw tensors behind that.

A protobuf message is nothing but its fields, one after the other, and encoders write them in the order of their
numbers: raw contents, the last field, are a request's end. They stay where they came, as views; protobuf reads only
what stands before. That is the same few bytes in request after request of a client, so what was read from them is kept
by these bytes, without the request's id. A message of any other form is read by protobuf as a whole. Source:
protobuf's encoding guide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from service.api.wire_limits import check_field_count
from service.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.domain.inference import RequestedOutput
    from service.domain.tensors import Tensor

_ID: Final = 0x1A
_RAW: Final = 0x3A
_PLAIN: Final = frozenset({0x0A, 0x12, _ID, 0x22, 0x2A, 0x32, _RAW})
"""The tags of the request's seven fields, all of which have a length."""
_MOST_FIELDS: Final = 64
_MOST_KEPT_BYTES: Final = 1024
_SHORT: Final = 0x80
_MOST_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class RawInput:
    """One input whose elements come raw: all that is said of them, checked, and how many bytes they take.

    ``size_bytes`` is -1 where the elements themselves have to be looked at.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(slots=True)
class Outline:
    """What a request says besides its raw contents, checked; ``tensors`` are inputs that came as typed contents."""

    raw_inputs: tuple[RawInput, ...]
    tensors: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...]
    parameters: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Said:
    """A ``ModelInferRequest`` without its id and, where those were its end, without raw contents; nobody changes it.

    ``outline`` is what the codec has made of it, once it has.
    """

    proto: Any
    outline: Outline | None = None


@dataclass(slots=True, eq=False)
class InferMessage:
    """One infer request as it came: what it says, its id, which may be empty, and the contents of its raw tensors."""

    said: Said
    id: str
    raws: Sequence[bytes | memoryview]


def read_message(data: bytes | memoryview) -> InferMessage:
    """Read a ``ModelInferRequest``; raw contents are views of ``data``.

    Raises:
        InvalidRequest: The bytes are no such message, or hold more tensors than any request does.
    """
    parts = _split(memoryview(data))
    if parts is None:
        said = _read(bytes(data))
        if said is not None:
            return InferMessage(said, said.proto.id, said.proto.raw_input_contents)
    else:
        head, request_id, raws = parts
        said = _read_kept(head) if len(head) <= _MOST_KEPT_BYTES else _read(head)
        if said is not None:
            return InferMessage(said, request_id, raws)
    name = service_pb2.ModelInferRequest.DESCRIPTOR.full_name
    raise InvalidRequest(f"the message of {len(data)} bytes is no {name}")


def _read(head: bytes) -> Said | None:
    check_field_count(head)
    try:
        return Said(service_pb2.ModelInferRequest.FromString(head))
    except DecodeError:
        return None


_read_kept: Final = lru_cache(maxsize=256)(_read)


def _split(data: memoryview) -> tuple[bytes, str, list[memoryview]] | None:
    """Return the bytes before the raw contents, less the id, then the id and the contents; ``None`` for other forms."""
    raws: list[memoryview] = []
    id_at = id_begins = id_ends = head_ends = offset = 0
    end = len(data)
    for _ in range(_MOST_FIELDS):
        if offset >= end:
            break
        tag = data[offset]
        length, start = _length(data, offset + 1)
        stop = start + length
        if tag not in _PLAIN or length < 0 or stop > end or (raws and tag != _RAW) or (tag == _ID and id_ends):
            return None
        if tag == _RAW:
            raws.append(data[start:stop])
        else:
            head_ends = stop
            if tag == _ID:
                id_at, id_begins, id_ends = offset, start, stop
        offset = stop
    if offset < end or not raws:
        return None
    if not id_ends:
        return bytes(data[:head_ends]), "", raws
    try:
        request_id = str(data[id_begins:id_ends], "utf-8")
    except UnicodeDecodeError:
        return None
    return bytes(data[:id_at]) + bytes(data[id_ends:head_ends]), request_id, raws


def _length(data: memoryview, offset: int) -> tuple[int, int]:
    """Return the length that stands at an offset, and where it ends; -1 where it is cut off or longer than any."""
    length = shift = 0
    for byte in data[offset : offset + _MOST_LENGTH_BYTES]:
        offset += 1
        length |= (byte & 0x7F) << shift
        if byte < _SHORT:
            return length, offset
        shift += 7
    return -1, offset
