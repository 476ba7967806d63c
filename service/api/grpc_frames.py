"""gRPC's framing over HTTP/2 and its headers, as its protocol document (PROTOCOL-HTTP2) has them.

A message is one byte that says whether it is compressed, four bytes of length (big endian), and the message.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from service.api.departures import ClientLeft
from service.api.http_body import inflate_whole
from service.api.names import shown
from service.domain.errors import InvalidRequest, PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from service.api.asgi import Receive


@dataclass(frozen=True, slots=True)
class GrpcReply:
    """How a call with one response ends: its message, and the trailers with its status.

    ``common`` are further trailers, which many answers have in common.
    """

    message: bytes
    trailers: list[tuple[bytes, bytes]]
    is_failed: bool = False
    common: tuple[tuple[bytes, bytes], ...] = ()


_PREFIX: Final = struct.Struct(">BI")
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def encode_frame(message: bytes) -> bytes:
    """Return a message as one uncompressed frame."""
    return _PREFIX.pack(0, len(message)) + message


def encode_message(text: str) -> bytes:
    """Return an error's text as ``grpc-message`` carries it: percent-encoded UTF-8."""
    return quote(text, safe=_PLAIN, errors="replace").encode()


def decode_timeout(headers: Mapping[bytes, bytes]) -> float | None:
    """Return ``grpc-timeout`` in seconds, or ``None`` where there is none.

    Raises:
        InvalidRequest: It is malformed.
    """
    value = headers.get(b"grpc-timeout")
    if value is None:
        return None
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        said = shown(value.decode("latin-1"))
        raise InvalidRequest(f"header 'grpc-timeout' is {said}; allowed is 1 to 8 digits and one of H, M, S, m, u, n")
    return int(found[1]) * _UNIT_S[found[2]]


async def read_frames(receive: Receive, headers: Mapping[bytes, bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the messages of a request's body, decompressed.

    Raises:
        PayloadTooLarge: A message is over the limit; the rest is not read.
        InvalidRequest: The body ends inside a message, or a message is broken.
        ClientLeft: The client went away.
    """
    encoding = headers.get(b"grpc-encoding", b"identity")
    buffer = bytearray()
    more = True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            raise ClientLeft
        more = event.get("more_body", False)
        buffer += event.get("body", b"")
        while len(buffer) >= _PREFIX.size:
            compressed, length = _PREFIX.unpack_from(buffer)
            if length > max_bytes:
                raise PayloadTooLarge(f"a message has {length} bytes; this server takes at most {max_bytes}")
            end = _PREFIX.size + length
            if len(buffer) < end:
                break
            message = bytes(buffer[_PREFIX.size : end])
            del buffer[:end]
            yield inflate_whole(message, encoding, max_bytes) if compressed else message
    if buffer:
        raise InvalidRequest(f"the body ends inside a message, {len(buffer)} bytes into it")
