"""One gRPC call on an HTTP/2 connection.

A call with one request and one response takes the short way, when its body is one plain message: the message goes to
the application's ``answer``, and headers, message and trailers leave in one write. Every other call is carried as ASGI,
with trailers. What the windows do not let out waits here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from service.domain.errors import Overloaded, PayloadTooLarge
from service.frontends import http2_frames as wire
from service.frontends.door import grpc_refusal, model_of_message
from service.frontends.http2_body import Body
from service.frontends.http2_frames import answer_block, frame, header_block, kept_block, number_frame
from service.frontends.message_edges import MessageEdges
from service.frontends.short_way import Driver

if TYPE_CHECKING:
    import asyncio

    from service.api.asgi import Message
    from service.api.grpc_frames import GrpcReply
    from service.frontends.http2 import Connection

_PREFIX_BYTES: Final = 5
_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_START: Final = answer_block([_CONTENT_TYPE, (b"grpc-accept-encoding", b"identity, deflate, gzip")])
_TURNED_AWAY: Final = _START + header_block(grpc_refusal())
_MODEL_INFER: Final = b"/ModelInfer"
_MOST_UNSENT_BYTES: Final = 1 << 18
_UNTOUCHED: Final = MessageEdges()
"""Those of calls that go the short way, which follows none."""
_DATA_HEAD: Final = struct.Struct(">HBBBIBI")
"""The head of a DATA frame, and the prefix of the message that fills it."""
_MOST_LOOKED_AT: Final = 256
"""Bytes of a message in which its model's name is looked for."""


class Stream:
    """One call; ``window`` is how much of its answer the client will take now."""

    __slots__ = (
        "_body", "_connection", "_drained", "_driver", "_edges", "_end", "_gathered", "_granted", "_half_since_s",
        "_has_entered", "_headers", "_held", "_is_complete", "_is_gone", "_is_short", "_is_started", "_moved_s",
        "_received", "_says_what_it_reads", "_task", "_told_end", "_unread", "_unsent", "_waiter", "number", "window",
    )  # fmt: skip

    def __init__(self, connection: Connection, number: int, headers: wire.Headers, receive_window: int) -> None:
        """Keep the head; ``begin`` starts."""
        self.number = number
        self.window = connection.first_window
        self._connection = connection
        self._headers = headers
        self._granted = receive_window
        self._received = self._held = self._unread = 0
        self._says_what_it_reads = False
        self._gathered: Body | None = None
        self._body = bytearray()
        self._unsent = bytearray()
        self._end: bytes | None = None
        self._is_complete = self._is_gone = self._is_started = self._told_end = self._has_entered = False
        self._is_short = False
        self._moved_s = self._half_since_s = connection.loop.time()
        self._edges = _UNTOUCHED
        self._driver: Driver | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    # What the connection calls.

    def begin(self, is_end: bool) -> None:
        """Start the call, now that its headers are here."""
        headers, calls = self._headers, self._connection.host.calls
        path = headers.get(b":path", b"")
        if headers.get(b":method") != b"POST":
            self._refuse_http(405)
        elif not headers.get(b"content-type", b"").startswith(_CONTENT_TYPE[1]):
            self._refuse_http(415)
        elif (error := self._connection.host.enter()) is not None:
            self._reply(calls.refuse(path, headers, error))
        else:
            self._has_entered = True
            self._is_short = calls.is_unary(path)
            if not self._is_short:
                self._carry()
            if is_end:
                self.take([], 0, True)

    def take(self, pieces: list[bytes | memoryview], size: int, is_end: bool) -> None:
        """Take what came of the request's body, ``size`` bytes of the window; nothing keeps ``pieces``."""
        if self._is_complete or self._end is not None:
            return  # what comes after the answer was under way when it left
        self._received += size
        if self._received > self._granted:
            self.reset(wire.FLOW_CONTROL_ERROR)
            return
        self._is_complete = is_end
        if not self._is_short:
            payload = b"".join(pieces)
            self._body += payload
            self._follow(payload)
        elif is_end and self._gathered is None and size <= self._connection.host.calls.max_message_bytes:
            self._answer(b"".join(pieces))
        else:
            self._gather(pieces)

    def _gather(self, pieces: list[bytes | memoryview]) -> None:
        calls, intake = self._connection.host.calls, self._connection.intake
        if self._gathered is None:
            self._gathered = Body()
        body = self._gathered
        body.add(pieces)
        self._hold(body.room_bytes - self._held)
        if max(body.size, body.said_bytes) > calls.max_message_bytes + _PREFIX_BYTES:
            limit = calls.max_message_bytes
            error = PayloadTooLarge(f"a message has more than {limit} bytes, the most that this server takes")
            self._reply(calls.refuse(self._headers[b":path"], self._headers, error))
        elif self._is_complete:
            self._hold(-self._held)
            self._answer(body.whole())
        elif intake.is_over:
            full = Overloaded(f"the connection has {intake.held_bytes} bytes of messages", 1.0)
            self._reply(calls.refuse(self._headers[b":path"], self._headers, full))
        else:
            self._grant()

    def push(self) -> None:
        """Send what the windows let out."""
        connection = self._connection
        while self._unsent and self.window > 0 and connection.window > 0 and not connection.is_paused:
            size = min(len(self._unsent), self.window, connection.window, connection.frame_size)
            connection.transport.write(frame(wire.DATA, 0, self.number, bytes(memoryview(self._unsent)[:size])))
            del self._unsent[:size]
            self.window -= size
            connection.window -= size
            connection.calm.earn(sent_bytes=size)
            self._moved_s = connection.loop.time()
        connection.waiting.pop(self.number, None)
        if self._unsent and self.window > 0:
            connection.waiting[self.number] = self  # behind the others, who waited longer
        if self._drained is not None and len(self._unsent) <= _MOST_UNSENT_BYTES and not self._drained.done():
            self._drained.set_result(None)
        if not self._unsent and self._end is not None and not self._is_gone:
            connection.transport.write(frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, self.number, self._end))
            self._finish()

    def widen(self, step: int) -> bool:
        """Change the window by ``step`` and send what it lets out; tell whether it may be that large."""
        self.window += step
        if self.window > wire.MOST_WINDOW:
            return False
        if self._unsent:
            self.push()
        return True

    def reset(self, code: int) -> None:
        """End the call without an answer."""
        self._connection.transport.write(number_frame(wire.RST_STREAM, self.number, code))
        self.leave()
        self._connection.closed(self, answered=False)

    def leave(self) -> None:
        """Stop working for a client that has left."""
        self._is_gone = True
        self._exit()
        self._unsent.clear()
        if self._driver is not None:
            self._driver.cancel()
        self._wake()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def waits_for_client_since(self, moment_s: float) -> bool:
        """Tell whether the client owes the rest of its request, or of its attention, for that long."""
        owes = (self._is_short and not self._is_complete) or bool(self._unsent)
        if owes and self._moved_s <= moment_s:
            return True
        may_send = not self._is_complete and self._received < self._granted
        return may_send and self._edges.unfinished_bytes > 0 and self._half_since_s <= moment_s

    # The short way.

    def _answer(self, body: bytes | memoryview) -> None:
        is_plain = len(body) >= _PREFIX_BYTES and body[0] == 0
        if not is_plain or int.from_bytes(body[1:_PREFIX_BYTES], "big") != len(body) - _PREFIX_BYTES:
            self._is_short = False
            self._body += body
            self._keep(len(body))
            self._carry()
            return
        connection = self._connection
        door, path = connection.host.door, self._headers[b":path"]
        if door is not None and path.endswith(_MODEL_INFER):
            model = model_of_message(bytes(body[_PREFIX_BYTES:_MOST_LOOKED_AT]))
            if door.turns_away("grpc", model, self._headers):
                self._fail(_TURNED_AWAY)
                return
        waited_s = connection.loop.time() - self._moved_s
        message = memoryview(body)[_PREFIX_BYTES:]
        work = connection.host.calls.answer(path, self._headers, message, waited_s)
        driver = Driver(connection.loop, work, self._reply, connection.transport)
        if self._end is None:
            self._driver = driver

    def _reply(self, reply: GrpcReply) -> None:
        self._driver = None
        connection, size = self._connection, len(reply.message) + _PREFIX_BYTES
        if self._is_gone or connection.transport.is_closing():
            return
        if connection.host.door is not None:
            connection.host.door.wrote()
        if reply.is_failed:
            self._fail(_START + header_block(reply.trailers))
            return
        self._end = kept_block(reply.common) + header_block(reply.trailers)
        head = frame(wire.HEADERS, wire.END_HEADERS, self.number, _START)
        if size > min(self.window, connection.window, connection.frame_size):
            connection.transport.write(head)
            self._unsent += b"\x00" + len(reply.message).to_bytes(4, "big") + reply.message
            self.push()
            return
        self.window -= size
        connection.window -= size
        connection.transport.write(
            b"".join(
                (
                    head,
                    _DATA_HEAD.pack(size >> 8, size & 0xFF, wire.DATA, 0, self.number, 0, len(reply.message)),
                    reply.message,
                    frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, self.number, self._end),
                )
            )
        )
        self._finish()

    def _fail(self, block: bytes) -> None:
        """Answer with nothing but the block of a status."""
        self._end = block
        head = frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, self.number, block)
        self._connection.transport.write(head)
        self._finish()

    def _refuse_http(self, status: int) -> None:
        connection = self._connection
        block = answer_block([(b"content-length", b"0")], status)
        connection.transport.write(frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, self.number, block))
        self._end = b""
        self._finish()

    # The long way: ASGI.

    def _carry(self) -> None:
        headers, self._edges = self._headers, MessageEdges()
        path, _, query = headers.get(b":path", b"").partition(b"?")
        scope: Message = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": "POST",
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [pair for pair in headers.items() if not pair[0].startswith(b":")],
            "extensions": {"http.response.trailers": {}, "tiergate.read": self._read},
        }
        self._task = self._connection.loop.create_task(self._run(scope))

    async def _run(self, scope: Message) -> None:
        try:
            await self._connection.host.calls(scope, self._receive, self._send)
        except OSError:
            pass  # as ASGI says that there is nobody to answer
        except Exception as error:  # noqa: BLE001 - the application answers its failures; this is the last line
            self._connection.host.note(f"{type(error).__name__} ended a call")
        if not self._is_gone and self._end is None:
            self.reset(wire.CANCEL)

    def _follow(self, payload: bytes) -> None:
        """Hand on a part of a body of many messages, unless the connection has too much that is not whole."""
        if self._edges.pass_over(payload):
            self._half_since_s = self._connection.loop.time()
        self._keep(len(payload))
        connection = self._connection
        if self._edges.unfinished_bytes and connection.intake.is_over:
            connection.host.note(f"the connection has {connection.intake.held_bytes} bytes of messages")
            self.reset(wire.ENHANCE_YOUR_CALM)
            return
        self._wake()

    def _read(self, size: int) -> None:
        """Hear that the application has read so much of what it received; 0 before all: it will say what it reads."""
        self._says_what_it_reads = True
        if not self._is_gone:
            self._keep(-size)
            self._grant()
            self._connection.grant()

    def _keep(self, size: int) -> None:
        """Hold what is unread, or else what is not whole, of which the application keeps the part that it has read."""
        self._unread += size
        self._connection.intake.unread_bytes += size
        self._hold(max(self._unread, self._edges.unfinished_bytes) - self._held)

    async def _receive(self) -> Message:
        while not self._is_gone:
            if self._body or (self._is_complete and not self._told_end):
                body, self._body = bytes(self._body), bytearray()
                self._told_end = self._is_complete
                if not self._says_what_it_reads:
                    self._keep(-len(body))
                    self._grant()
                    self._connection.grant()
                return {"type": "http.request", "body": body, "more_body": not self._is_complete}
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._is_gone or self._connection.transport.is_closing():
            raise OSError("the client has left")
        if message["type"] == "http.response.start":
            return  # every call starts alike, with its first message or with its trailers
        if message["type"] == "http.response.body":
            if message.get("body"):
                self._start()
                self._unsent += message["body"]
                self._moved_s = self._connection.loop.time()
                self.push()
            while len(self._unsent) > _MOST_UNSENT_BYTES and not self._is_gone:
                self._drained = self._connection.loop.create_future()
                await self._drained
            return
        block = header_block(message["headers"])
        self._end = block if self._is_started else _START + block
        self.push()

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._connection.transport.write(frame(wire.HEADERS, wire.END_HEADERS, self.number, _START))

    # Both ways.

    def _grant(self) -> None:
        """Let the client send more, once it has used half of what it may."""
        room = self._granted - (self._received - self._unread)
        if not self._is_complete and room < wire.STREAM_WINDOW // 2:
            step = wire.STREAM_WINDOW - room
            self._granted += step
            self._half_since_s = self._connection.loop.time()  # until now it may have been us whom the rest waited for
            self._connection.transport.write(number_frame(wire.WINDOW_UPDATE, self.number, step))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _finish(self) -> None:
        if not self._is_complete:  # the rest of the request is not wanted
            self._connection.transport.write(number_frame(wire.RST_STREAM, self.number, wire.NO_ERROR))
        has_entered = self._has_entered
        self._exit()
        self._is_gone = True
        self._wake()
        self._connection.closed(self, answered=has_entered)

    def _hold(self, size: int) -> None:
        self._held += size
        self._connection.intake.held_bytes += size

    def _exit(self) -> None:
        self._connection.intake.unread_bytes -= self._unread
        self._unread = 0
        self._hold(-self._held)
        if self._has_entered:
            self._has_entered = False
            self._connection.host.exit()
