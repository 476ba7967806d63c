"""One HTTP/2 connection (RFC 9113) that carries unary gRPC calls, as a client.

It announces windows so large that an answer never waits for one, keeps to the server's windows, and takes no pushes.
A call is one HEADERS frame and its DATA; an answer ends with a HEADERS frame that has the status.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from loadtests.clients.answers import Unreadable, read_grpc, status_of_grpc
from loadtests.clients.hpack import HeaderError, grpc_status
from loadtests.recording import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.recording import Reply

    OnDone = Callable[[int, float, Status, Reply | None], None]

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_TABLE_SIZE, _PUSH, _MOST_STREAMS, _WINDOW, _FRAME = 1, 2, 3, 4, 5
_HEAD: Final = 9
_MOST: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535
_FIRST_FRAME: Final = 16_384
_CANCEL: Final = 8
_PREFIX: Final = 5


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3, "big"), kind, flags, stream.to_bytes(4, "big"), payload)


_PREFACE: Final = b"".join(
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        _frame(_SETTINGS, 0, 0, struct.pack(">HIHIHI", _TABLE_SIZE, 0, _PUSH, 0, _WINDOW, _MOST)),
        _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _MOST - _FIRST_WINDOW)),
    )
)


class _Call:
    __slots__ = ("block", "body", "index", "unsent", "window")

    def __init__(self, index: int, message: bytes, window: int) -> None:
        self.index = index
        self.unsent = message
        self.window = window
        self.body: list[bytes] = []
        self.block = b""


class Http2Connection(asyncio.Protocol):
    """Calls in flight on one connection; ``on_done`` hears once of each: index, moment, status, reply."""

    def __init__(self, on_done: OnDone) -> None:
        """Wait for a transport."""
        self._on_done = on_done
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._window = _FIRST_WINDOW
        self._call_window = _FIRST_WINDOW
        self._most_frame = _FIRST_FRAME
        self._stalled: deque[int] = deque()
        self._received = 0
        self._at_s = 0.0
        self.most_calls = 100
        """Calls that the server takes at once; it says so in its settings."""
        self.is_open = False
        self.is_ready = asyncio.Event()
        """Set when the server's settings are known."""

    def __len__(self) -> int:
        return len(self._calls)

    def ask(self, index: int, block: bytes, message: bytes) -> int:
        """Send a call; return its key for ``expire``."""
        assert self._transport is not None  # noqa: S101 - only open connections are asked
        stream, self._next = self._next, self._next + 2
        self._calls[stream] = call = _Call(index, message, self._call_window)
        head = _frame(_HEADERS, _END_HEADERS, stream, block)
        if not self._stalled and len(message) <= min(self._window, call.window, self._most_frame):
            self._window -= len(message)
            call.unsent = b""
            self._transport.write(head + _frame(_DATA, _END_STREAM, stream, message))
        else:
            self._transport.write(head)
            self._stalled.append(stream)
            self._send_stalled()
        return stream

    def expire(self, key: int) -> None:
        """Give a call up, if it has not ended."""
        if key in self._calls and self._transport is not None:
            self._at_s = monotonic()
            self._transport.write(_frame(_RST_STREAM, 0, key, struct.pack(">I", _CANCEL)))
            self._end(key, Status.TIMED_OUT)

    def close(self) -> None:
        """Leave at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        self._transport.write(_PREFACE)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End every call that is under way."""
        self.is_open = False
        self.is_ready.set()
        self._at_s = monotonic()
        for stream in tuple(self._calls):
            self._end(stream, Status.LOST_CONNECTION)

    def data_received(self, data: bytes) -> None:
        """Take apart what came into frames."""
        self._at_s = monotonic()
        buffer = self._buffer
        buffer += data
        place, end = 0, len(buffer)
        while end - place >= _HEAD:
            length = int.from_bytes(buffer[place : place + 3], "big")
            after = place + _HEAD + length
            if after > end:
                break
            stream = int.from_bytes(buffer[place + 5 : place + 9], "big") & _MOST
            self._read(buffer[place + 3], buffer[place + 4], stream, bytes(buffer[place + _HEAD : after]))
            place = after
        del buffer[:place]

    def _read(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._read_data(flags, stream, payload)
        elif kind in (_HEADERS, _CONTINUATION):
            self._read_headers(kind, flags, stream, payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._read_settings(payload)
        elif kind == _WINDOW_UPDATE:
            self._read_window(stream, int.from_bytes(payload, "big") & _MOST)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM and stream in self._calls:
            self._end(stream, Status.FAILED)
        elif kind == _GOAWAY:
            self.is_open = False
            last = int.from_bytes(payload[:4], "big") & _MOST
            for item in [item for item in self._calls if item > last]:
                self._end(item, Status.LOST_CONNECTION)

    def _read_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received > _MOST // 2:
            self._write(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        call = self._calls.get(stream)
        if call is not None:
            call.body.append(_unpadded(payload) if flags & _PADDED else payload)
            if flags & _END_STREAM:  # no status: not gRPC
                self._end(stream, Status.UNREADABLE)

    def _read_headers(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS and flags & _PADDED:
            payload = _unpadded(payload)
        if kind == _HEADERS and flags & _PRIORITY:
            payload = payload[5:]
        call = self._calls.get(stream)
        if call is None:
            return
        call.block += payload
        if not flags & _END_HEADERS:
            return
        block, call.block = call.block, b""
        try:
            code = grpc_status(block)
        except HeaderError:
            self._end(stream, Status.UNREADABLE)
            return
        if code is not None:
            self._finish(stream, code)
        elif kind == _HEADERS and flags & _END_STREAM:
            self._end(stream, Status.UNREADABLE)

    def _finish(self, stream: int, code: int) -> None:
        status = status_of_grpc(code)
        if status is not Status.OK:
            self._end(stream, status)
            return
        content = b"".join(self._calls[stream].body)
        try:
            reply = read_grpc(_message_in(content))
        except Unreadable:
            self._end(stream, Status.UNREADABLE)
        else:
            self._end(stream, Status.OK, reply)

    def _end(self, stream: int, status: Status, reply: Reply | None = None) -> None:
        call = self._calls.pop(stream)
        self._on_done(call.index, self._at_s, status, reply)

    def _read_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _MOST_STREAMS:
                self.most_calls = value
            elif name == _FRAME:
                self._most_frame = value
            elif name == _WINDOW:
                for call in self._calls.values():
                    call.window += value - self._call_window
                self._call_window = value
        self._write(_frame(_SETTINGS, _ACK, 0, b""))
        self.is_ready.set()
        self._send_stalled()

    def _read_window(self, stream: int, more: int) -> None:
        if not stream:
            self._window += more
        elif stream in self._calls:
            self._calls[stream].window += more
        self._send_stalled()

    def _send_stalled(self) -> None:
        """Send what the windows allow of the messages that wait for them, in order."""
        while self._stalled:
            stream = self._stalled[0]
            call = self._calls.get(stream)
            if call is None:  # given up
                self._stalled.popleft()
                continue
            size = min(self._window, call.window, self._most_frame, len(call.unsent))
            if size <= 0:
                return
            piece, call.unsent = call.unsent[:size], call.unsent[size:]
            self._window -= size
            call.window -= size
            self._write(_frame(_DATA, 0 if call.unsent else _END_STREAM, stream, piece))
            if not call.unsent:
                self._stalled.popleft()

    def _write(self, content: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(content)


def _message_in(content: bytes) -> bytes:
    """Return the one message that an answer consists of, without its prefix."""
    if content[:1] != b"\0" or len(content) != _PREFIX + int.from_bytes(content[1:_PREFIX], "big"):
        raise Unreadable("the answer is not one uncompressed message")
    return content[_PREFIX:]


def _unpadded(payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]]
