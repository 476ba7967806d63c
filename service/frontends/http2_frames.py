"""HTTP/2's frames and header blocks (RFC 9113, RFC 7541), as far as a gRPC server needs them.

Headers are decoded by hpack, a library in Python that is slow beside everything else here. But a client sends the same
headers with every call, and from the second call on as the same few bytes, which name entries of the connection's
table. A block that leaves the table as it is means the same until the table changes, so its headers are kept.

Headers are encoded without the table, as literals: nothing to keep in step with the client, and the bytes of a name can
be kept too.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from hpack import Decoder, HPACKError, OversizedHeaderListError

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0x5, 0x6, 0x7, 0x8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x9, 0xB

HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x1, 0x3, 0x4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x5, 0x6

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD: Final = struct.Struct(">HBBBI")
"""Length in two parts, kind, flags, stream (its first bit is reserved)."""

NUMBER_MASK: Final = 0x7FFFFFFF
"""What counts of a stream's number or a window's step: their first bit is reserved."""
MOST_WINDOW: Final = 2**31 - 1
LEAST_FRAME_SIZE: Final = 16384
DEFAULT_WINDOW: Final = 65535
STREAM_WINDOW: Final = 1 << 20
"""How much of a request may come before this side has to grant more."""

_MOST_BLOCKS_KEPT: Final = 16
_MOST_BLOCK_KEPT_BYTES: Final = 1024
_MOST_REASON: Final = 100
"""Characters of the library's reason for a broken block, which quotes the block."""
_MOST_SETTINGS: Final = 32
_SHORT: Final = 127
_SETTING: Final = struct.Struct(">HI")
_SHORT_LENGTHS: Final = [bytes((number,)) for number in range(_SHORT)]
_LITERAL: Final = b"\x00"
_STATUS_200: Final = b"\x88"  # entry 8 of the static table

Headers = dict[bytes, bytes]


class Http2Error(Exception):
    """The connection cannot go on; ``code`` tells the client why."""

    def __init__(self, code: int, message: str) -> None:
        """Keep HTTP/2's error code."""
        super().__init__(message)
        self.code = code


class HeaderReader:
    """Decodes one connection's header blocks, in their order."""

    def __init__(self, most_bytes: int) -> None:
        """Start with an empty table; no list of headers may be larger than ``most_bytes`` when decoded."""
        self._decoder = Decoder(max_header_list_size=most_bytes)
        self._kept: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """Return a block's headers; nobody may change them. Where a name comes twice, the last one counts.

        Raises:
            Http2Error: The block is broken, or its headers are too large.
        """
        kept = self._kept.get(block)
        if kept is not None:
            return kept
        before, newest = self._table()
        try:
            pairs = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise Http2Error(ENHANCE_YOUR_CALM, "the headers are too large") from None
        except HPACKError as error:
            raise Http2Error(COMPRESSION_ERROR, f"the headers cannot be read: {str(error)[:_MOST_REASON]}") from None
        headers = {bytes(pair[0]): bytes(pair[1]) for pair in pairs}
        after, newest_after = self._table()
        if after != before or newest_after is not newest:
            self._kept.clear()
        elif len(self._kept) < _MOST_BLOCKS_KEPT and len(block) <= _MOST_BLOCK_KEPT_BYTES:
            self._kept[block] = headers
        return headers

    def _table(self) -> tuple[tuple[int, int], object]:
        """Return the table's sizes and its newest entry: what differs when an entry was added, or its size was changed.

        Whoever compares holds the entry itself, for the identity of a freed one goes to another.
        """
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return (table.maxsize, len(entries)), entries[0] if entries else None


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    length = len(payload)
    return FRAME_HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings_frame(settings: Iterable[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in settings))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the settings of a frame.

    Raises:
        Http2Error: Its length is no multiple of six, or it has more settings than any client needs.
    """
    if len(payload) % _SETTING.size:
        raise Http2Error(FRAME_SIZE_ERROR, f"a SETTINGS frame has {len(payload)} bytes")
    if len(payload) > _MOST_SETTINGS * _SETTING.size:
        count = len(payload) // _SETTING.size
        raise Http2Error(
            ENHANCE_YOUR_CALM, f"a SETTINGS frame has {count} settings; at most {_MOST_SETTINGS} are taken"
        )
    return [(name, value) for name, value in _SETTING.iter_unpack(payload)]


def number_frame(kind: int, stream: int, number: int) -> bytes:
    """Return a frame that holds one number: RST_STREAM or WINDOW_UPDATE."""
    return frame(kind, 0, stream, number.to_bytes(4, "big"))


def unpad(payload: bytes, flags: int) -> bytes:
    """Return what a DATA or HEADERS frame holds, without padding and priority.

    Raises:
        Http2Error: The padding is longer than the frame.
    """
    start = pad = 0
    if flags & PADDED:
        pad, start = (payload[0] if payload else 0), 1
    if flags & HAS_PRIORITY:
        start += 5
    if start + pad > len(payload):
        raise Http2Error(PROTOCOL_ERROR, "a frame's padding is longer than the frame")
    return payload[start : len(payload) - pad]


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as a block of literals that touch no table; names are lower-case."""
    parts: list[bytes] = []
    for name, value in headers:
        size = len(value)
        parts += (_name(name), _SHORT_LENGTHS[size] if size < _SHORT else _length(size), value)
    return b"".join(parts)


kept_block: Final = lru_cache(maxsize=256)(header_block)
"""The same for tuples of headers that come again and again."""


def answer_block(headers: Iterable[tuple[bytes, bytes]], status: int = 200) -> bytes:
    """Return the block that starts an answer."""
    first = _STATUS_200 if status == 200 else header_block([(b":status", b"%d" % status)])  # noqa: PLR2004
    return first + header_block(headers)


@lru_cache(maxsize=256)
def _name(name: bytes) -> bytes:
    return _LITERAL + _length(len(name)) + name


def _length(number: int) -> bytes:
    if number < _SHORT:
        return _SHORT_LENGTHS[number]
    digits, number = [_SHORT], number - _SHORT
    while number > _SHORT:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))
