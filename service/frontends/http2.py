"""gRPC's HTTP/2 on an asyncio transport: frames, flow control and limits of one connection.

Own code, because the libraries are too slow or too far from our promises: what each of them measured is in
docs/decisions. What a gRPC server needs of HTTP/2 is small: no push, no priorities, no upgrade, answers that fit one
write. What it must withstand is not (floods of streams, resets, pings, settings and continuations, windows that never
open, requests that never end), so each of those has its bound here.

A connection that breaks a rule gets GOAWAY and is closed; a stream that does gets RST_STREAM.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from service.frontends import http2_frames as wire
from service.frontends.http2_cutting import FRAME_SIZE, MOST_COPIED_BYTES, Cutter
from service.frontends.http2_frames import NUMBER_MASK, Http2Error, frame, number_frame, unpad
from service.frontends.http2_limits import CONNECTION_WINDOW, Calm, Intake
from service.frontends.http2_stream import Stream
from service.frontends.sockets import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.frontends.http2_host import Host

_MOST_HEADER_BYTES: Final = 64 * 1024
_MOST_STREAMS: Final = 1024
"""Calls that one connection may have open; more wait in the client."""
_INTERRUPTED: Final = "a header block is interrupted"

_IDLE_S: Final = 300.0
"""A connection without calls for so long is closed; clients open another one when they need it."""
_QUIET_S: Final = 60.0
"""After that a client is asked whether it is still there."""


class Connection(asyncio.BufferedProtocol):
    """One client's connection; ``host`` is the server, ``streams`` are the calls that are open.

    ``waiting`` are those that could send more, did the connection's window let them; who waited longest is first.
    """

    def __init__(self, host: Host, on_lost: Callable[[Connection], None]) -> None:
        """Wait for ``connection_made``."""
        self.host = host
        self.loop = asyncio.get_running_loop()
        self.streams: dict[int, Stream] = {}
        self.waiting: dict[int, Stream] = {}
        self.window = self.first_window = wire.DEFAULT_WINDOW
        self.frame_size = wire.LEAST_FRAME_SIZE
        self.is_paused = False
        self.intake = Intake(host.calls.max_message_bytes)
        self.calm = Calm(self.loop.time())
        self.transport: asyncio.Transport
        self._on_lost = on_lost
        self._reader = wire.HeaderReader(_MOST_HEADER_BYTES)
        self._cutter = Cutter(self.loop.time())
        self._last_stream = 0
        self._block: tuple[int, int, bytearray] | None = None
        self._is_leaving = False
        self._waits_since_s: float | None = None
        self._unread_since_s: float | None = None
        self._heard_s = self._used_s = self.loop.time()
        self._is_asked = False
        self._watch: asyncio.TimerHandle | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as TCP servers have it
        """Tell the client what this side allows."""
        self.transport = transport
        self._watch = self.loop.call_later(self.host.read_timeout_s / 2, self._look)
        if not self.host.admit(self):
            self._leave(wire.ENHANCE_YOUR_CALM)
            return
        transport.write(
            wire.settings_frame(
                (
                    (wire.MAX_CONCURRENT_STREAMS, _MOST_STREAMS),
                    (wire.INITIAL_WINDOW_SIZE, wire.STREAM_WINDOW),
                    (wire.MAX_FRAME_SIZE, FRAME_SIZE),
                    (wire.MAX_HEADER_LIST_SIZE, _MOST_HEADER_BYTES),
                )
            )
            + number_frame(wire.WINDOW_UPDATE, 0, CONNECTION_WINDOW - wire.DEFAULT_WINDOW)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop what was being done for the client."""
        del exc
        if self._watch is not None:
            self._watch.cancel()
        for stream in list(self.streams.values()):
            stream.leave()
        self.streams.clear()
        self.waiting.clear()
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Read nothing from a client that does not read: every frame of its could make one more answer."""
        self._unread_since_s, self.is_paused = self.loop.time(), True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        if self.transport.is_closing():
            return  # all that was written has to be read, and the time for it goes on
        self._unread_since_s, self.is_paused = None, False
        self.transport.resume_reading()
        self._push_waiting()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the server's buffer for the next read: what is read is copied, if at all, before the next one."""
        del sizehint
        return self.host.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Handle what was read."""
        data = self.host.read_buffer[:nbytes]
        self.data_received(bytes(data) if nbytes <= MOST_COPIED_BYTES else data)

    def data_received(self, data: bytes | memoryview) -> None:
        """Handle every frame that is complete; nothing keeps ``data``."""
        if self.transport.is_closing():
            return
        self._heard_s, self._is_asked = self.loop.time(), False
        if self.host.door is not None:
            self.host.door.read(None if self._cutter.has_preface else self.transport)
        try:
            self._cutter.feed(data, self, self._heard_s)
        except Http2Error as error:
            self.host.note(str(error))
            self._leave(error.code)

    # Frames.

    def is_closing(self) -> bool:
        """Tell whether nothing more is wanted of the client."""
        return self.transport.is_closing()

    def take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Handle a frame that holds no DATA."""
        if self._block is not None and kind != wire.CONTINUATION:
            raise Http2Error(wire.PROTOCOL_ERROR, _INTERRUPTED)
        if kind == wire.HEADERS:
            self._headers(flags, number, unpad(payload, flags))
        elif kind == wire.WINDOW_UPDATE:
            self._window_update(number, payload)
        else:
            self._spend_calm()
            handler = _RARE.get(kind)
            if handler is not None:
                handler(self, flags, number, payload)

    def take_data(self, number: int, pieces: list[bytes | memoryview], size: int, *, is_end: bool) -> None:
        """Handle what came of a call's body."""
        if self._block is not None:
            raise Http2Error(wire.PROTOCOL_ERROR, _INTERRUPTED)
        stream = self.streams.get(number)
        if stream is None and (number == 0 or number > self._last_stream):
            raise Http2Error(wire.PROTOCOL_ERROR, f"DATA comes on stream {number}, which is not open")
        self.grant(size)
        if not size and not is_end:
            self._spend_calm()
        if stream is not None:
            stream.take(pieces, size, is_end)

    def _headers(self, flags: int, number: int, block: bytes) -> None:
        if number == 0:
            raise Http2Error(wire.PROTOCOL_ERROR, "HEADERS come on no stream")
        _check_size(block)
        if flags & wire.END_HEADERS:
            self._open(flags, number, block)
            return
        self._block = number, flags, bytearray(block)
        self._waits_since_s = self.loop.time()

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise Http2Error(wire.PROTOCOL_ERROR, "a CONTINUATION frame continues nothing")
        first, block = self._block[1], self._block[2]
        block += payload
        _check_size(block)
        if flags & wire.END_HEADERS:
            self._block = self._waits_since_s = None
            self._open(first, number, bytes(block))

    def _open(self, flags: int, number: int, block: bytes) -> None:
        headers = self._reader.read(block)
        is_end = bool(flags & wire.END_STREAM)
        if number <= self._last_stream:
            self._spend_calm()
            stream = self.streams.get(number)
            if stream is not None and is_end:
                stream.take([], 0, True)  # trailers, which gRPC's clients have none of
            elif stream is not None:
                raise Http2Error(wire.PROTOCOL_ERROR, f"stream {number} has headers twice")
            return
        if number % 2 == 0:
            raise Http2Error(wire.PROTOCOL_ERROR, f"stream {number} is no client's")
        self._last_stream = number
        if self._is_leaving or len(self.streams) >= _MOST_STREAMS:
            self._spend_calm()
            self.transport.write(number_frame(wire.RST_STREAM, number, wire.REFUSED_STREAM))
            return
        stream = self.streams[number] = Stream(self, number, headers, wire.STREAM_WINDOW)
        stream.begin(is_end)

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:  # noqa: PLR2004 - a number's bytes
            raise Http2Error(wire.FRAME_SIZE_ERROR, f"a WINDOW_UPDATE frame has {len(payload)} bytes")
        step = int.from_bytes(payload, "big") & NUMBER_MASK
        self._spend_calm()
        if number == 0:
            self.window += step
            if not step or self.window > wire.MOST_WINDOW:
                raise Http2Error(wire.FLOW_CONTROL_ERROR if step else wire.PROTOCOL_ERROR, "a window is out of range")
            self._push_waiting()
            return
        if number > self._last_stream:
            raise Http2Error(wire.PROTOCOL_ERROR, f"WINDOW_UPDATE comes on stream {number}, which is not open")
        stream = self.streams.get(number)
        if stream is not None and not (step and stream.widen(step)):
            stream.reset(wire.FLOW_CONTROL_ERROR if step else wire.PROTOCOL_ERROR)

    def _push_waiting(self) -> None:
        for stream in list(self.waiting.values()):
            if self.window <= 0 or self.is_paused:
                return
            stream.push()

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Http2Error(wire.PROTOCOL_ERROR, "SETTINGS come on a stream")
        if flags & wire.ACK:
            return
        first_window = self.first_window
        for name, value in wire.read_settings(payload):
            if name == wire.INITIAL_WINDOW_SIZE:
                if value > wire.MOST_WINDOW:
                    raise Http2Error(wire.FLOW_CONTROL_ERROR, f"a window of {value} bytes is out of range")
                first_window = value
            elif name == wire.MAX_FRAME_SIZE:
                if not wire.LEAST_FRAME_SIZE <= value < 1 << 24:
                    raise Http2Error(wire.PROTOCOL_ERROR, f"frames of {value} bytes are out of range")
                self.frame_size = value
        if first_window != self.first_window:
            self._change_windows(first_window)
        self.transport.write(frame(wire.SETTINGS, wire.ACK, 0))

    def _change_windows(self, first_window: int) -> None:
        step, self.first_window = first_window - self.first_window, first_window
        for stream in list(self.streams.values()):
            if not stream.widen(step):
                raise Http2Error(wire.FLOW_CONTROL_ERROR, f"the window of stream {stream.number} is out of range")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) != 8:  # noqa: PLR2004 - as the RFC has it
            raise Http2Error(wire.FRAME_SIZE_ERROR, "a PING is malformed")
        if not flags & wire.ACK:
            self.transport.write(frame(wire.PING, wire.ACK, 0, payload))

    def _reset(self, flags: int, number: int, payload: bytes) -> None:
        del flags, payload
        if number == 0 or number > self._last_stream:
            raise Http2Error(wire.PROTOCOL_ERROR, f"RST_STREAM comes on stream {number}, which is not open")
        stream = self.streams.pop(number, None)
        if stream is not None:
            self.waiting.pop(number, None)
            stream.leave()
            self.grant()

    def _push_promise(self, *_: object) -> None:
        raise Http2Error(wire.PROTOCOL_ERROR, "a client cannot promise pushes")

    # What streams and the server call.

    def closed(self, stream: Stream, *, answered: bool) -> None:
        """Forget a stream that has ended; an answer earns the client some calm, a refusal none."""
        self.streams.pop(stream.number, None)
        self.waiting.pop(stream.number, None)
        self._used_s = self.loop.time()
        if answered:
            self.calm.earn(answers=1)
        self.grant()  # what the stream left unread keeps the window closed no more
        if self._is_leaving and not self.streams:
            self.transport.close()

    def grant(self, size: int = 0) -> None:
        """Count ``size`` bytes that came; open the connection's window for more if it is time to."""
        step = self.intake.grant(size)
        if step:
            self.transport.write(number_frame(wire.WINDOW_UPDATE, 0, step))

    def leave(self) -> None:
        """Take no new calls; close when the open ones are answered."""
        if not self._is_leaving and not self.transport.is_closing():
            self._is_leaving = True
            self.transport.write(_goaway(self._last_stream, wire.NO_ERROR))
        if not self.streams:
            self.transport.close()

    def _leave(self, code: int) -> None:
        self._is_leaving = True
        if not self.transport.is_closing():
            self.transport.write(_goaway(self._last_stream, code))
        self._unread_since_s = self.loop.time()  # closing waits for what was written to be read
        self.transport.close()

    def _spend_calm(self) -> None:
        self.calm.spend(self.loop.time())

    def _look(self) -> None:
        """Cut off what takes too long, twice in the time that it may take."""
        limit_s = self.host.read_timeout_s
        self._watch = self.loop.call_later(limit_s / 2, self._look)
        since_s = self.loop.time() - limit_s
        moments_s = (self._waits_since_s, self._unread_since_s, self._cutter.half_since_s)
        if any(moment_s is not None and moment_s <= since_s for moment_s in moments_s):
            self.host.note(f"the connection sent or read nothing for {limit_s:g} s that had to be")
            if self._unread_since_s is None:
                self.transport.abort()
            else:
                cut(self.transport)
            return
        self._look_for_client(self.loop.time())
        for stream in list(self.streams.values()):
            if stream.waits_for_client_since(since_s):
                self.host.note(f"a call was not sent, or its answer not read, within {limit_s:g} s")
                stream.reset(wire.CANCEL)

    def _look_for_client(self, now_s: float) -> None:
        """Let go of a client that needs nothing, or that is not there any more though nothing says so."""
        if not self.streams and now_s - self._used_s > _IDLE_S:
            self.leave()
        elif self._is_asked and now_s - self._heard_s > _QUIET_S + self.host.read_timeout_s:
            self.host.note("the client does not answer any more")
            self.transport.abort()
        elif now_s - self._heard_s > _QUIET_S and not self._is_asked:
            self._is_asked = True
            self.transport.write(frame(wire.PING, 0, 0, bytes(8)))


_RARE: Final[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
    wire.SETTINGS: Connection._settings,  # noqa: SLF001 - its own table
    wire.PING: Connection._ping,  # noqa: SLF001
    wire.RST_STREAM: Connection._reset,  # noqa: SLF001
    wire.CONTINUATION: Connection._continuation,  # noqa: SLF001
    wire.PUSH_PROMISE: Connection._push_promise,  # noqa: SLF001
}


def _check_size(block: bytes | bytearray) -> None:
    if len(block) > _MOST_HEADER_BYTES:
        raise Http2Error(wire.ENHANCE_YOUR_CALM, f"the headers are larger than {_MOST_HEADER_BYTES} bytes")


def _goaway(last_stream: int, code: int) -> bytes:
    return frame(wire.GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big"))
