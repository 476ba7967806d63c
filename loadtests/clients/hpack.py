"""As much header compression (RFC 7541) as a client needs that keeps no table.

The client announces a table of size zero, so that no header block of the server refers to an earlier one and each can
be read by itself. Requests carry their headers as plain literals. Of an answer only one header matters,
``grpc-status``; the others are stepped over without being decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_STATIC_ENTRIES: Final = 61
_INDEXED, _INCREMENTAL, _RESIZE, _HUFFMAN = 0x80, 0x40, 0x20, 0x80
_METHOD_POST, _SCHEME_HTTP = 0x83, 0x86
_CODES: Final = {
    "-": "010110", "a": "00011", "c": "00100", "g": "100110", "p": "101011", "r": "101100", "s": "01000",
    "t": "01001", "u": "101101", "0": "00000", "1": "00001", "2": "00010", "3": "011001", "4": "011010",
    "5": "011011", "6": "011100", "7": "011101", "8": "011110", "9": "011111",
}  # fmt: skip
"""The Huffman codes (appendix B) of the characters of ``grpc-status`` and of numbers."""
_GRPC_CODES: Final = 17


class HeaderError(ValueError):
    """A header block breaks the rules, or refers to a table that we do not keep."""


def encode_request(path: str, authority: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the header block of a POST request."""
    pairs = [(":path", path), (":authority", authority), *headers]
    literals = b"".join(b"\0" + _text(name) + _text(value) for name, value in pairs)
    return bytes((_METHOD_POST, _SCHEME_HTTP)) + literals


def grpc_status(block: bytes) -> int | None:
    """Return the status code of a header block, ``None`` where it has none.

    Raises:
        HeaderError: The block cannot be read.
    """
    place, end, status = 0, len(block), None
    try:
        while place < end:
            first = block[place]
            if first & _INDEXED:
                index, place = _integer(block, place, 7)
                _check(index)
                continue
            if not first & _INCREMENTAL and first & _RESIZE:
                _, place = _integer(block, place, 5)
                continue
            index, place = _integer(block, place, 6 if first & _INCREMENTAL else 4)
            _check(index)
            name = b""
            if not index:
                name, place = _string(block, place)
            value, place = _string(block, place)
            if name in _STATUS_NAMES:
                status = _STATUS_VALUES[value]
    except (IndexError, KeyError) as error:
        raise HeaderError(f"the header block cannot be read at byte {place}: {error!r}") from None
    return status


def _check(index: int) -> None:
    if index > _STATIC_ENTRIES:
        raise HeaderError(f"the header block refers to entry {index} of a table of {_STATIC_ENTRIES}")


def _integer(block: bytes, place: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[place] & most
    place += 1
    if value < most:
        return value, place
    shift = 0
    while True:
        byte = block[place]
        place += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, place


def _string(block: bytes, place: int) -> tuple[bytes, int]:
    """Return a string as it stands there, with a mark in front where it is Huffman-coded, and the place after it."""
    mark = b"\xff" if block[place] & _HUFFMAN else b""
    length, place = _integer(block, place, 7)
    return mark + block[place : place + length], place + length


def _text(text: str) -> bytes:
    raw = text.encode()
    most = 0x7F
    if len(raw) < most:
        return bytes((len(raw),)) + raw
    rest, head = len(raw) - most, bytearray((most,))
    while rest > most:
        head.append(0x80 | (rest & 0x7F))
        rest >>= 7
    head.append(rest)
    return bytes(head) + raw


def _huffman(text: str) -> bytes:
    bits = "".join(_CODES[character] for character in text)
    bits += "1" * (-len(bits) % 8)
    return b"\xff" + bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))


_STATUS_NAMES: Final = frozenset((b"grpc-status", _huffman("grpc-status")))
_STATUS_VALUES: Final = {
    form: code for code in range(_GRPC_CODES) for form in (str(code).encode(), _huffman(str(code)))
}
