"""Reading a request's body: bounded, decompressed, and refused early; and compressing an answer's.

The limit counts bytes after decompression, and a compressed body is inflated in bounded pieces, so that a bomb costs
the limit and no more.

An answer is compressed only for a client that names exactly one coding (``Accept-Encoding: gzip``), as tritonclient
does for ``response_compression_algorithm``. HTTP libraries that always offer a list (requests, aiohttp, browsers, curl
--compressed) get plain bytes: tensors barely compress, and compressing costs more than the network does.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Final

from service.api.departures import ClientLeft
from service.api.names import shown
from service.domain.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.api.asgi import Receive

_WBITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_PIECE_BYTES: Final = 1 << 20
_SLICE_BYTES: Final = 1 << 16
_MIN_COMPRESSED_BYTES: Final = 1024
_LEVEL: Final = 1
_MEDIA: Final = (b"", b"application/json", b"application/octet-stream")


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], max_bytes: int) -> bytes:
    """Return the whole body, decompressed.

    Raises:
        PayloadTooLarge: It is over the limit; the rest is not read.
        UnsupportedMedia: Its encoding is not one that this server reads.
        InvalidRequest: A length is no number, or the compressed data is broken.
        ClientLeft: The client went away.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)
    if encoding != b"identity":
        return await _read_compressed(receive, encoding, max_bytes)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and message["type"] == "http.request":
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    return await _read_rest(receive, bytearray(body), message["type"], max_bytes)


def check_content_type(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that says it is anything but JSON or tensors.

    Raises:
        UnsupportedMedia: The content type is not one that this server reads.
    """
    content_type = headers.get(b"content-type")
    if content_type is None or content_type in _MEDIA:
        return
    if content_type.partition(b";")[0].strip().lower() not in _MEDIA:
        message = (
            f"content type {shown(content_type.decode('latin-1'))} is not supported; allowed are application/json and "
            "application/octet-stream (with curl: -H 'Content-Type: application/json')"
        )
        raise UnsupportedMedia(message)


def json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the header ``Inference-Header-Content-Length``.

    Raises:
        InvalidRequest: It is no number.
    """
    value = headers.get(b"inference-header-content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 15:  # noqa: PLR2004 - longer than any body
        said = shown(value.decode("latin-1"))
        raise InvalidRequest(f"header 'Inference-Header-Content-Length' is {said}; allowed is a whole number from 1")
    return int(value)


def inflate_whole(data: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Return decompressed data.

    Raises:
        PayloadTooLarge: The result is over the limit.
        UnsupportedMedia: The encoding is not one that this server reads.
        InvalidRequest: The data is broken.
    """
    inflater = _Inflater(encoding, max_bytes)
    for piece in _slices(data):
        while inflater.feed(piece):
            piece = b""  # noqa: PLW2901 - what is left of it is inside the inflater
    return inflater.finish()


def compress(body: bytes, accept_encoding: bytes) -> tuple[bytes, bytes | None]:
    """Return the body and the coding that it is in, ``None`` where it stayed as it was."""
    wbits = _WBITS.get(accept_encoding)
    if wbits is None or len(body) < _MIN_COMPRESSED_BYTES:
        return body, None
    deflater = zlib.compressobj(_LEVEL, wbits=wbits)
    return deflater.compress(body) + deflater.flush(), accept_encoding


async def _read_rest(receive: Receive, body: bytearray, kind: str, max_bytes: int) -> bytes:
    more = True
    while more:
        if kind != "http.request":
            raise ClientLeft
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        message = await receive()
        kind = message["type"]
        more = kind != "http.request" or message.get("more_body", False)
        body += message.get("body", b"")
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return bytes(body)


async def _read_compressed(receive: Receive, encoding: bytes, max_bytes: int) -> bytes:
    inflater = _Inflater(encoding, max_bytes)
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeft
        more = message.get("more_body", False)
        for piece in _slices(message.get("body", b"")):
            while inflater.feed(piece):
                piece = b""  # noqa: PLW2901 - what is left of it is inside the inflater
                await asyncio.sleep(0)  # let others run between two pieces
    return inflater.finish()


class _Inflater:
    """Inflates one stream in pieces of bounded size, up to a limit."""

    def __init__(self, encoding: bytes, max_bytes: int) -> None:
        wbits = _WBITS.get(encoding)
        if wbits is None:
            said = shown(encoding.decode("latin-1"))
            message = f"content encoding {said} is not supported; allowed is one of gzip, deflate and identity"
            raise UnsupportedMedia(message)
        self._stream = zlib.decompressobj(wbits)
        self._max_bytes = max_bytes
        self._body = bytearray()

    def feed(self, data: bytes) -> bool:
        """Inflate up to one piece of the data; return whether there is more to inflate: call again with none."""
        try:
            piece = self._stream.decompress(self._stream.unconsumed_tail + data, _PIECE_BYTES)
        except zlib.error as error:
            raise InvalidRequest(f"the compressed body is broken: {error}") from None
        self._body += piece
        if len(self._body) > self._max_bytes:
            raise _too_large(self._max_bytes)
        if self._stream.unused_data:
            raise InvalidRequest("the compressed body has data after its end")
        return len(piece) == _PIECE_BYTES

    def finish(self) -> bytes:
        """Return the whole body."""
        if not self._stream.eof:
            raise InvalidRequest("the compressed body is cut off")
        return bytes(self._body)


def _slices(data: bytes) -> Iterator[bytes]:
    """Yield data in slices; zlib copies what it has not consumed at every call, so that a long input would cost."""
    return (data[start : start + _SLICE_BYTES] for start in range(0, len(data), _SLICE_BYTES))


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {max_bytes} bytes, the most that this server takes")
