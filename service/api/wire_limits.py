"""A bound on what a protobuf message may unfold into, checked on its bytes before it is parsed.

An empty submessage takes two bytes on the wire and about a hundred in memory, so that a few megabytes of them would
take the whole machine. Walking the message and its tensors counts them in a few microseconds: a field is a tag and
either a length with so many bytes to skip, or a number. Source: protobuf's encoding guide.
"""

from __future__ import annotations

from typing import Final

from service.domain.errors import InvalidRequest

_MAX_FIELDS: Final = 8192
_FREE_BYTES: Final = 1 << 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TENSORS: Final = (5, 6)  # the fields of ModelInferRequest that hold inputs and requested outputs


def check_field_count(data: bytes) -> None:
    """Refuse an infer request with more fields than any needs, in the message and in its tensors.

    Small messages can do no harm and pass, and so do broken ones: the parser says what is wrong with them. Elements
    of typed contents do not count; the parser packs them well.

    Raises:
        InvalidRequest: There are too many fields.
    """
    if len(data) > _FREE_BYTES and _count_down(data, 0, len(data), _MAX_FIELDS, inside=False) == 0:
        raise InvalidRequest(f"the message has more than {_MAX_FIELDS} fields; no inference request has so many")


def _count_down(data: bytes, offset: int, end: int, budget: int, *, inside: bool) -> int:
    """Return what is left of the budget after every field from ``offset`` to ``end`` took one."""
    while offset < end and budget > 0:
        budget -= 1
        tag, start = _varint(data, offset)
        if tag & 7 == _BYTES:
            length, start = _varint(data, start)
            offset = min(start + length, end)
            if tag >> 3 in _TENSORS and not inside:
                budget = _count_down(data, start, offset, budget, inside=True)
        else:
            offset = _skip_number(data, tag & 7, start)
    return budget


def _skip_number(data: bytes, kind: int, offset: int) -> int:
    """Return where the next field starts; the end of the data where the kind is no number's."""
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
