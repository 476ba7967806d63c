"""A bound on what a protobuf message may unfold into, checked on its bytes before it is parsed.

An empty submessage takes two bytes on the wire and about a hundred in memory, so that a few megabytes of them would
take the whole machine. Walking the top level of the message counts them in a few microseconds: a field is a tag and
either a length with so many bytes to skip, or a number. Source: protobuf's encoding guide.
"""

from __future__ import annotations

from typing import Final

from service.domain.errors import InvalidRequest

_MAX_FIELDS: Final = 8192
_FREE_BYTES: Final = 1 << 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_tensor_count(data: bytes) -> None:
    """Refuse a message with more fields at its top level than any request needs; small ones can do no harm.

    A message that is broken passes: the parser says so.

    Raises:
        InvalidRequest: There are too many.
    """
    if len(data) <= _FREE_BYTES:
        return
    offset = 0
    for _ in range(_MAX_FIELDS):
        if offset >= len(data):
            return
        offset = _skip_field(data, offset)
    raise InvalidRequest(f"the message has more than {_MAX_FIELDS} fields; no inference request has so many")


def _skip_field(data: bytes, offset: int) -> int:
    """Return where the next field starts; the end of the data where this one is broken."""
    tag, offset = _varint(data, offset)
    kind = tag & 7
    if kind == _BYTES:
        length, offset = _varint(data, offset)
        return offset + length
    if kind == _VARINT:
        return _varint(data, offset)[1]
    return offset + {_FIXED64: 8, _FIXED32: 4}.get(kind, len(data))


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while offset < len(data):
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says "more follows"
            return value, offset
        shift += 7
    return value, len(data)
