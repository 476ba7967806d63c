"""Handing a variant's file to a client that runs it on its own hardware: conditional and in ranges (RFC 9110)."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from service.api.http_message import Reply, json_reply
from service.api.names import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.api.http_message import Headers, HttpRequest
    from service.domain.descriptions import Artifact

_PIECE_BYTES: Final = 1 << 18
_RANGE: Final = re.compile(rb"bytes=([0-9]{0,18})-([0-9]{0,18})")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


def artifact_reply(artifact: Artifact, request: HttpRequest) -> Reply:
    """Return the file, the range asked for, or 304 where the client has this very file."""
    etag = b'"%b"' % artifact.digest.encode()
    headers: Headers = [
        (b"etag", etag),
        (b"accept-ranges", b"bytes"),
        (b"x-tiergate-variant", artifact.variant.encode()),
    ]
    if _matches(request.headers.get(b"if-none-match"), etag):
        return Reply(304, headers)
    headers.append((b"content-type", b"application/octet-stream"))
    filename = _UNSAFE.sub("_", artifact.filename)
    headers.append((b"content-disposition", b'attachment; filename="%b"' % filename.encode()))
    wanted = request.headers.get(b"range")
    if wanted is None or request.headers.get(b"if-range", etag) != etag:
        return _file_reply(200, headers, artifact, (0, artifact.size_bytes))
    return _range_reply(headers, artifact, wanted)


def _range_reply(headers: Headers, artifact: Artifact, wanted: bytes) -> Reply:
    found = _RANGE.fullmatch(wanted.replace(b" ", b""))
    if found is None:  # several ranges, or another unit: the whole file, as the RFC allows
        return _file_reply(200, headers, artifact, (0, artifact.size_bytes))
    size = artifact.size_bytes
    span = _span(found[1], found[2], size)
    if span is None:
        message = f"range {shown(wanted.decode('latin-1'))} lies outside the file of {size} bytes"
        return json_reply({"error": message}, 416, [(b"content-range", b"bytes */%d" % size)])
    headers.append((b"content-range", b"bytes %d-%d/%d" % (span[0], span[1] - 1, size)))
    return _file_reply(206, headers, artifact, span)


def _file_reply(status: int, headers: Headers, artifact: Artifact, span: tuple[int, int]) -> Reply:
    headers.append((b"content-length", b"%d" % (span[1] - span[0])))
    return Reply(status, headers, stream=_pieces(artifact.path, *span))


def _span(first: bytes, last: bytes, size: int) -> tuple[int, int] | None:
    """Return a range as start and end (exclusive), or ``None`` where the file has nothing of it."""
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
    elif last:  # "-500": the last 500 bytes
        start, end = max(size - int(last), 0), size
    else:
        return None
    return (start, end) if start < end else None


def _matches(condition: bytes | None, etag: bytes) -> bool:
    if condition is None:
        return False
    tags = {tag.strip().removeprefix(b"W/") for tag in condition.split(b",")}
    return etag in tags or b"*" in tags


async def _pieces(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    """Yield the file's bytes; each read runs in a thread, because a disk may be slow."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        await asyncio.to_thread(file.seek, start)
        while start < end:
            piece = await asyncio.to_thread(file.read, min(_PIECE_BYTES, end - start))
            if not piece:
                return
            start += len(piece)
            yield piece
    finally:
        file.close()
