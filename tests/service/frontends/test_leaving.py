"""A client that has left is known to have before the event loop has read that, by both protocols' short ways."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import uvloop
from hpack import Encoder

from service.api.grpc_frames import GrpcReply
from service.api.http_message import Reply
from service.engine.prompt import PromptFuture
from service.frontends import http2_frames as wire
from service.frontends.grpc import CallLimits, GrpcServer
from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.http2_frames import frame
from service.frontends.short_way import ShortWay
from service.frontends.sockets import bind, has_left, port_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.api.asgi import Receive, Scope, Send

POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
HEAD = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/a/Infer",
    ":authority": "x",
    "content-type": "application/grpc",
}
CALL = (
    wire.PREFACE
    + wire.settings_frame([])
    + frame(wire.HEADERS, wire.END_HEADERS, 1, Encoder().encode(HEAD.items()))
    + frame(wire.DATA, wire.END_STREAM, 1, b"\x00\x00\x00\x00\x01x")
)
RESET = struct.pack("ii", 1, 0)  # struct linger of socket(7): on, for 0 s


class Application:
    """Awaits one future for every request, as the data plane does."""

    max_message_bytes = 100

    def __init__(self) -> None:
        self.awaited: PromptFuture[None] = PromptFuture(asyncio.get_running_loop())
        self.entered = asyncio.Event()

    async def http(self, *_: object) -> Reply:
        await self._wait()
        return Reply(200, [(b"content-length", b"0")], b"")

    async def answer(self, *_: object) -> GrpcReply:
        await self._wait()
        return GrpcReply(b"", [(b"grpc-status", b"0")])

    def is_unary(self, _: bytes) -> bool:
        return True

    def refuse(self, *_: object) -> GrpcReply:
        return GrpcReply(b"", [(b"grpc-status", b"8")], is_failed=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        raise AssertionError(f"{scope['path']} took the long way")

    async def _wait(self) -> None:
        self.entered.set()
        await self.awaited


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_who_waits_for_an_answer_is_known_to_have_left_before_the_loop_turns(protocol: str) -> None:
    application = Application()
    server: HttpServer | GrpcServer
    if protocol == "http":
        server = HttpServer(application, ConnectionLimits(10, 60.0), short_way=ShortWay(application.http, 100))
    else:
        server = GrpcServer(application, CallLimits(3, 4, 60.0), lambda _: None)
    with bind("127.0.0.1", 0, "http_port") as listener:
        await server.start(listener)
        with socket.create_connection(("127.0.0.1", port_of(listener))) as client:
            client.sendall(POST if protocol == "http" else CALL)
            await application.entered.wait()
            assert not application.awaited.has_left()
        assert application.awaited.has_left()
        with pytest.raises(asyncio.CancelledError):
            await application.awaited  # the loop has read it
        await (server.close() if isinstance(server, HttpServer) else server.close(0))


@pytest.mark.parametrize("rest", [POST, b"what is no HTTP\r\n\r\n"])
async def test_connection_of_whom_is_found_to_have_left_ends_though_nothing_more_is_read_from_it(rest: bytes) -> None:
    application = Application()
    server = HttpServer(application, ConnectionLimits(10, 60.0), short_way=ShortWay(application.http, 100))
    connections = server._server.server_state.connections
    with bind("127.0.0.1", 0, "http_port") as listener:
        await server.start(listener)
        with socket.create_connection(("127.0.0.1", port_of(listener))) as client:
            client.sendall(POST)
            await application.entered.wait()
            (connection,) = connections
            client.sendall(rest)
            while not connection.flow.read_paused:  # type: ignore[union-attr] # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        assert application.awaited.has_left()
        application.awaited.cancel()
        async with asyncio.timeout(60):
            while connections:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        await server.close()


def leave(client: socket.socket) -> None:
    client.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def send_and_leave(client: socket.socket) -> None:
    client.sendall(bytes(1000))  # which nobody has read
    client.close()


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
@pytest.mark.parametrize("end", [leave, reset, send_and_leave])
def test_connection_that_the_client_ended_is_known_to_be(
    run: Callable[..., None], end: Callable[[socket.socket], None]
) -> None:
    async def see() -> None:
        loop = asyncio.get_running_loop()
        connected: asyncio.Future[asyncio.BaseTransport] = loop.create_future()
        lost = asyncio.Event()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connected.set_result(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                del exc
                lost.set()

        async with await loop.create_server(Protocol, "127.0.0.1", 0) as server:
            client = socket.create_connection(server.sockets[0].getsockname())
            transport = await connected
            assert not has_left(transport)
            client.sendall(b"more")
            assert not has_left(transport)
            end(client)
            assert has_left(transport)
            await lost.wait()
            assert has_left(transport)
            await asyncio.sleep(0)
            assert has_left(transport)

    run(see())


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_connection_that_is_closed_here_has_nobody_who_waits(run: Callable[..., None]) -> None:
    async def see() -> None:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        async with server:
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, *server.sockets[0].getsockname()
            )
            transport.close()
            assert has_left(transport)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert has_left(transport)

    run(see())


def test_connection_that_ends_while_it_is_looked_at_has_nobody_who_waits() -> None:
    class Ending(asyncio.BaseTransport):
        """As asyncio's of TLS where another thread takes away what is below it, between two looks at that."""

        below: asyncio.BaseTransport | None = None

        def is_closing(self) -> bool:
            return False

        def get_extra_info(self, name: str, default: object = None) -> object:
            return self.below.get_extra_info(name, default)  # type: ignore[union-attr] # which is the point

    assert has_left(Ending())
