"""Handing a variant's file to a client that runs it on its own hardware: conditional and in ranges (RFC 9110).

The digest that was verified when the model was loaded is the file's ETag. So the file is opened once, without following
links, and compared with what was verified, before the first byte is sent and with every piece.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from typing import TYPE_CHECKING, BinaryIO, Final

from service.api.hardware import ACCEPT_CH
from service.api.http_errors import HttpRefused
from service.api.http_message import Reply
from service.api.names import shown
from service.domain.errors import ModelNotReady

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.api.http_message import Headers, HttpRequest
    from service.domain.descriptions import Artifact

_PIECE_BYTES: Final = 1 << 18
_RANGE: Final = re.compile(rb"bytes=([0-9]{0,18})-([0-9]{0,18})")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


def artifact_reply(artifact: Artifact, request: HttpRequest) -> Reply:
    """Return the file, the range asked for, or 304 where the client has this very file.

    Raises:
        HttpRefused: The range lies outside the file.
        ModelNotReady: The file is not there as it was verified.
    """
    etag = b'"%b"' % artifact.digest.encode()
    headers: Headers = [
        (b"etag", etag),
        (b"accept-ranges", b"bytes"),
        (b"x-tiergate-variant", artifact.variant.encode()),
        ACCEPT_CH,
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
        raise HttpRefused(416, message, [(b"content-range", b"bytes */%d" % size)])
    headers.append((b"content-range", b"bytes %d-%d/%d" % (span[0], span[1] - 1, size)))
    return _file_reply(206, headers, artifact, span)


def _file_reply(status: int, headers: Headers, artifact: Artifact, span: tuple[int, int]) -> Reply:
    headers.append((b"content-length", b"%d" % (span[1] - span[0])))
    return Reply(status, headers, stream=_Span(artifact, *span))


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


def _open(artifact: Artifact) -> BinaryIO:
    """Open the file that was verified, and no other that has taken its place.

    Raises:
        ModelNotReady: It is not there any more, or not as it was verified.
    """
    try:
        file = open(artifact.path, "rb", buffering=0, opener=_open_unfollowed)  # noqa: SIM115 - the span closes it
    except OSError:
        raise _changed(artifact) from None
    try:
        _check_unchanged(file, artifact)
    except ModelNotReady:
        file.close()
        raise
    return file


def _open_unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # a FIFO without a writer must not hold us


def _check_unchanged(file: BinaryIO, artifact: Artifact) -> None:
    found = os.fstat(file.fileno())
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    is_same = identity == artifact.identity if artifact.identity else found.st_size == artifact.size_bytes
    if not is_same or not stat.S_ISREG(found.st_mode):
        raise _changed(artifact)


def _changed(artifact: Artifact) -> ModelNotReady:
    return ModelNotReady(f"the file of variant '{artifact.variant}' is not there as it was verified; reload the model")


class _Span:
    """The bytes of an open file from ``start`` to ``end``; each read runs in a thread, because a disk may be slow."""

    def __init__(self, artifact: Artifact, start: int, end: int) -> None:
        self._artifact = artifact
        self._file = _open(artifact)
        self._start = start
        self._end = end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            ModelNotReady: The file was changed while it was sent, so that what is sent is not what was verified.
        """
        if self._start >= self._end:
            raise StopAsyncIteration
        piece = await asyncio.to_thread(self._read)
        self._start += len(piece)
        return piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> bytes:
        size = min(_PIECE_BYTES, self._end - self._start)
        try:
            piece = os.pread(self._file.fileno(), size, self._start)
        except (OSError, ValueError):  # a bad disk; or closed, by a client that left meanwhile
            raise _changed(self._artifact) from None
        _check_unchanged(self._file, self._artifact)
        return piece
