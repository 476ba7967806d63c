"""The gRPC server over real sockets: what it carries for a real client, and what it withstands from a hostile one."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hpack import Encoder

from service.api.grpc_frames import GrpcReply
from service.frontends import http2_frames as wire
from service.frontends.grpc import CallLimits, GrpcServer
from service.frontends.http2_frames import frame, number_frame
from service.frontends.sockets import bind, port_of
from tests.service.frontends.connections import connected_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from service.api.asgi import Receive, Scope, Send
    from service.api.plane import Refusal

MOST_MESSAGE_BYTES = 1 << 16
READ_TIMEOUT_S = 0.3
OK = [(b"grpc-status", b"0")]
HEAD = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/test.Service/Echo",
    ":authority": "x",
    "content-type": "application/grpc",
    "te": "trailers",
}


class Echo:
    """Sends messages back: unary ones to ``/Echo``, streams by ASGI; ``/Wait`` waits for ever."""

    max_message_bytes = MOST_MESSAGE_BYTES

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.entered = asyncio.Semaphore(0)
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["http_version"] == "2"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        message: Any = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.trailers", "headers": OK})

    def is_unary(self, path: bytes) -> bool:
        return path in (b"/test.Service/Echo", b"/test.Service/Wait")

    async def answer(
        self, path: bytes, headers: wire.Headers, message: bytes | memoryview, waited_s: float
    ) -> GrpcReply:
        assert waited_s >= 0.0
        if path.endswith(b"Wait"):
            self.waiting.set()
            self.entered.release()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.left.set()
        return GrpcReply(bytes(message), [*OK, (b"told", headers.get(b"tell", b""))])

    def refuse(self, path: bytes, headers: wire.Headers, error: Exception) -> GrpcReply:
        del path, headers
        return GrpcReply(b"", [(b"grpc-status", b"8"), (b"grpc-message", str(error).encode())], is_failed=True)


@dataclass
class Served:
    """A running server, and what it has reported."""

    echo: Echo
    port: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def connected(self) -> AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return connected_to(self.port)


@contextlib.asynccontextmanager
async def serving(read_timeout_s: float) -> AsyncIterator[Served]:
    found = Served(Echo())
    server = GrpcServer(found.echo, CallLimits(3, 4, read_timeout_s), found.refusals.append)
    with bind("127.0.0.1", 0, "grpc_port") as listener:
        found.port = port_of(listener)
        await server.start(listener)
        yield found
        await server.close(0)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(60.0) as found:
        yield found


@pytest.fixture
async def impatient() -> AsyncIterator[Served]:
    async with serving(READ_TIMEOUT_S) as found:
        yield found


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{served.port}", options=[("grpc.max_receive_message_length", -1)]
    ) as found:
        yield found


def opening(stream: int, path: str = HEAD[":path"], *, more: dict[str, str] | None = None) -> bytes:
    """Return the HEADERS frame of a call."""
    block = Encoder().encode((HEAD | {":path": path} | (more or {})).items())
    return frame(wire.HEADERS, wire.END_HEADERS, stream, block)


def message(data: bytes) -> bytes:
    return b"\x00" + len(data).to_bytes(4, "big") + data


START = wire.PREFACE + wire.settings_frame([])


async def frames(reader: asyncio.StreamReader) -> list[tuple[int, int, int, bytes]]:
    """Return every frame that comes until the server closes."""
    found = []
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            high, low, kind, flags, stream = wire.FRAME_HEAD.unpack(await reader.readexactly(wire.FRAME_HEAD.size))
            found.append((kind, flags, stream, await reader.readexactly(high << 8 | low)))
    return found


async def talk(served: Served, data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Send bytes after the preface; return all frames until the server closes."""
    async with served.connected() as (reader, writer):
        writer.write(START + data)
        return await frames(reader)


def goaway_codes(found: list[tuple[int, int, int, bytes]]) -> list[int]:
    """Return the code of the GOAWAY that ended a connection; it can get lost where the client's flood was unread."""
    return [int.from_bytes(payload[4:8], "big") for kind, _, _, payload in found if kind == wire.GOAWAY]


@pytest.mark.parametrize("size", [0, 1, 16379, 16384, MOST_MESSAGE_BYTES])
async def test_unary_messages_come_back_whole(channel: grpc.aio.Channel, size: int) -> None:
    call: Any = channel.unary_unary("/test.Service/Echo")
    assert await call(bytes(size)) == bytes(size)


async def test_headers_are_read_the_same_the_first_and_every_later_time(channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_unary("/test.Service/Echo")
    for word in ("one", "one", "two", "one", "two", "y" * 5000):
        started = call(b"", metadata=(("tell", word),))
        await started
        assert dict(await started.trailing_metadata())["told"] == word


async def test_streams_larger_than_every_window_come_back_whole(channel: grpc.aio.Channel) -> None:
    call: Any = channel.stream_stream("/test.Service/Stream")
    pieces = [bytes([number]) * 700_000 for number in range(6)]
    assert [piece async for piece in call(iter(pieces))] == pieces


async def test_message_over_the_limit_is_refused_before_it_is_whole(channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_unary("/test.Service/Echo")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(bytes(MOST_MESSAGE_BYTES + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await call(b"next") == b"next"


@pytest.mark.parametrize("path", ["/test.Service/Wait", "/test.Service/Stream"])
async def test_client_that_cancels_or_leaves_stops_the_work(served: Served, path: str) -> None:
    async with served.connected() as (reader, writer):
        writer.write(START + opening(1, path) + frame(wire.DATA, path.endswith("Wait"), 1, message(b"back")))
        await (served.echo.waiting.wait() if path.endswith("Wait") else reader.readuntil(b"back"))
        writer.write(number_frame(wire.RST_STREAM, 1, wire.CANCEL))
        await served.echo.left.wait()


async def test_calls_over_the_limit_are_refused_and_the_others_go_on(served: Served, channel: grpc.aio.Channel) -> None:
    wait: Any = channel.unary_unary("/test.Service/Wait")
    open_calls = [asyncio.ensure_future(wait(b"")) for _ in range(4)]
    for _ in open_calls:
        await served.echo.entered.acquire()
    call: Any = channel.unary_unary("/test.Service/Echo")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"")
    assert (caught.value.code(), "more than 4 calls" in str(caught.value.details())) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        True,
    )
    for open_call in open_calls:
        open_call.cancel()
    await asyncio.gather(*open_calls, return_exceptions=True)
    assert await call(b"free again") == b"free again"


async def test_connection_over_the_limit_is_closed_and_reported(served: Served) -> None:
    async with served.connected(), served.connected(), served.connected():
        found = await talk(served, b"")
    assert goaway_codes(found) == [wire.ENHANCE_YOUR_CALM]
    assert "more than 3 connections are open" in str(served.refusals[0].error)


BROKEN = {
    "DATA on a stream that is not open": (frame(wire.DATA, 0, 1, b"x"), wire.PROTOCOL_ERROR),
    "DATA on no stream": (frame(wire.DATA, 0, 0, b"x"), wire.PROTOCOL_ERROR),
    "a server's stream": (opening(2), wire.PROTOCOL_ERROR),
    "headers twice": (opening(1) + opening(1), wire.PROTOCOL_ERROR),
    "broken header block": (frame(wire.HEADERS, wire.END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), wire.COMPRESSION_ERROR),
    "interrupted header block": (frame(wire.HEADERS, 0, 1, b"\x88") + frame(wire.PING, 0, 0, bytes(8)), 1),
    "CONTINUATION of nothing": (frame(wire.CONTINUATION, 0, 1, b""), wire.PROTOCOL_ERROR),
    "padding longer than the frame": (opening(1) + frame(wire.DATA, wire.PADDED, 1, b"\x09x"), wire.PROTOCOL_ERROR),
    "frame too large": (wire.FRAME_HEAD.pack(0x4000, 1, wire.DATA, 0, 1), wire.FRAME_SIZE_ERROR),
    "window of nothing": (number_frame(wire.WINDOW_UPDATE, 0, 0), wire.PROTOCOL_ERROR),
    "window overflow": (number_frame(wire.WINDOW_UPDATE, 0, 2**31 - 1), wire.FLOW_CONTROL_ERROR),
    "window of a stream that is not open": (number_frame(wire.WINDOW_UPDATE, 9, 1), wire.PROTOCOL_ERROR),
    "malformed window": (frame(wire.WINDOW_UPDATE, 0, 0, b"x"), wire.FRAME_SIZE_ERROR),
    "malformed settings": (frame(wire.SETTINGS, 0, 0, b"x"), wire.FRAME_SIZE_ERROR),
    "settings out of range": (wire.settings_frame([(wire.MAX_FRAME_SIZE, 1)]), wire.PROTOCOL_ERROR),
    "window setting out of range": (wire.settings_frame([(wire.INITIAL_WINDOW_SIZE, 2**31)]), wire.FLOW_CONTROL_ERROR),
    "malformed ping": (frame(wire.PING, 0, 0, b"x"), wire.FRAME_SIZE_ERROR),
    "pushed promise": (frame(wire.PUSH_PROMISE, 0, 1, bytes(4)), wire.PROTOCOL_ERROR),
    "reset of a stream that is not open": (number_frame(wire.RST_STREAM, 9, 0), wire.PROTOCOL_ERROR),
    "header list bomb": (
        frame(wire.HEADERS, wire.END_HEADERS, 1, b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 100),
        wire.ENHANCE_YOUR_CALM,
    ),
    "continuation flood": (
        frame(wire.HEADERS, 0, 1, b"") + frame(wire.CONTINUATION, 0, 1, bytes(60)) * 2100,
        wire.ENHANCE_YOUR_CALM,
    ),
    "empty continuation flood": (
        frame(wire.HEADERS, 0, 1, b"") + frame(wire.CONTINUATION, 0, 1) * 2100,
        wire.ENHANCE_YOUR_CALM,
    ),
    "ping flood": (frame(wire.PING, 0, 0, bytes(8)) * 2100, wire.ENHANCE_YOUR_CALM),
    "settings flood": (wire.settings_frame([]) * 2100, wire.ENHANCE_YOUR_CALM),
    "flood of empty data": (opening(1) + frame(wire.DATA, 0, 1) * 2100, wire.ENHANCE_YOUR_CALM),
    "window flood": (number_frame(wire.WINDOW_UPDATE, 0, 1) * 2100, wire.ENHANCE_YOUR_CALM),
    "rapid reset": (
        b"".join(opening(n, "/a.B/Stream") + number_frame(wire.RST_STREAM, n, 8) for n in range(1, 4300, 2)),
        wire.ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_the_protocol_is_answered_with_goaway_and_reported(served: Served, name: str) -> None:
    data, code = BROKEN[name]
    found = await talk(served, data)
    assert goaway_codes(found) in ([code], [] if "flood" in name or name == "rapid reset" else [code])
    assert [refusal.protocol for refusal in served.refusals] == ["grpc"], served.refusals
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        call: Any = channel.unary_unary("/test.Service/Echo")
        assert await call(b"good") == b"good"


async def test_what_is_not_http2_is_closed(served: Served) -> None:
    async with served.connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert goaway_codes(await frames(reader)) == [wire.PROTOCOL_ERROR]


@pytest.mark.parametrize(
    ("more", "status"), [({":method": "GET"}, b"405"), ({"content-type": "text/html"}, b"415")], ids=["GET", "HTML"]
)
async def test_what_is_no_grpc_gets_an_http_status(served: Served, more: dict[str, str], status: bytes) -> None:
    async with served.connected() as (reader, writer):
        writer.write(START + opening(1, more=more))
        while True:
            high, low, kind, _, _ = wire.FRAME_HEAD.unpack(await reader.readexactly(wire.FRAME_HEAD.size))
            payload = await reader.readexactly(high << 8 | low)
            if kind == wire.HEADERS:
                break
    assert wire.HeaderReader(1000).read(payload)[b":status"] == status


SLOW = {
    "silence": b"",
    "half a preface": wire.PREFACE[:9],
    "half a header block": START + frame(wire.HEADERS, 0, 1, b"\x88"),
    "half a frame": START + frame(wire.PING, 0, 0, bytes(8))[:12],
    "half a message": START + opening(1) + frame(wire.DATA, 0, 1, message(b"abc")[:6]),
    "half a message of a stream": START
    + opening(1, "/a.B/Stream")
    + frame(wire.DATA, 0, 1, message(b"abc") * 2 + b"\0"),
    "answer that may not leave": (
        wire.PREFACE
        + wire.settings_frame([(wire.INITIAL_WINDOW_SIZE, 0)])
        + opening(1)
        + frame(wire.DATA, wire.END_STREAM, 1, message(b"abc"))
    ),
}


@pytest.mark.parametrize("name", SLOW)
async def test_slow_client_is_cut_off_and_reported(impatient: Served, name: str) -> None:
    async with impatient.connected() as (reader, writer):
        writer.write(SLOW[name])
        while not impatient.refusals:
            data = await reader.read(1 << 16)
            if not data:
                break
    assert f"{READ_TIMEOUT_S:g} s" in str(impatient.refusals[0].error)


async def test_closing_lets_open_calls_finish(served: Served) -> None:
    server = GrpcServer(served.echo, CallLimits(3, 4, 60.0))
    with bind("127.0.0.1", 0, "grpc_port") as listener:
        await server.start(listener)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port_of(listener)}") as channel:
            call: Any = channel.stream_stream("/test.Service/Stream")
            started = call()
            await started.write(b"one")
            assert await started.read() == b"one"
            closing = asyncio.create_task(server.close(30.0))
            await started.write(b"two")
            assert await started.read() == b"two"
            await started.done_writing()
            assert await started.read() is grpc.aio.EOF
            await closing


async def test_server_that_leaves_says_so_takes_nothing_new_and_finishes_what_is_open() -> None:
    server = GrpcServer(Echo(), CallLimits(3, 4, 60.0))
    with bind("127.0.0.1", 0, "grpc_port") as listener:
        port = port_of(listener)
        await server.start(listener)
        async with connected_to(port) as (reader, writer):
            writer.write(START + opening(1) + frame(wire.PING, 0, 0, bytes(8)))
            await reader.readuntil(frame(wire.PING, wire.ACK, 0, bytes(8)))  # it has read what came before
            server.leave()
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port)
            writer.write(opening(3) + frame(wire.DATA, wire.END_STREAM, 1, message(b"abc")))
            seen = [kind for kind, _, stream, _ in await frames(reader) if stream in (0, 1)]
            assert seen[0] == wire.GOAWAY
            assert seen[-3:] == [wire.HEADERS, wire.DATA, wire.HEADERS]
        await server.close(1.0)
