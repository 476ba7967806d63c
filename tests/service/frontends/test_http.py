"""What the HTTP server refuses by itself, over real sockets; every refusal is told to who logs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.sockets import bind, port_of
from tests.service.frontends.connections import connected_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from service.api.asgi import Receive, Scope, Send
    from service.api.plane import Refusal

PIECE, PIECES = bytes(1 << 20), 32
REQUEST = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
READ_TIMEOUT_S = 1.0
"""Of servers that are to cut somebody off: longer than a busy machine takes for the first bytes of a connection."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer more than any socket holds under ``/large``, and two bytes elsewhere, once the request is whole."""
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    if message["type"] == "http.disconnect":
        return
    count, piece = (PIECES, PIECE) if scope["path"] == "/large" else (1, b"ok")
    length = (b"content-length", b"%d" % (count * len(piece)))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    for left in reversed(range(count)):
        await send({"type": "http.response.body", "body": piece, "more_body": left > 0})


@dataclass
class Served:
    """A running server, and the refusals that it has reported."""

    port: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    refused: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        self.refused.set()

    def connected(self) -> AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return connected_to(self.port)


@contextlib.asynccontextmanager
async def serving(read_timeout_s: float) -> AsyncIterator[Served]:
    found = Served()
    server = HttpServer(app, ConnectionLimits(3, read_timeout_s), found.note)
    with bind("127.0.0.1", 0, "http_port") as listener:
        found.port = port_of(listener)
        await server.start(listener)
        yield found
        await server.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(60.0) as found:
        yield found


@pytest.fixture
async def impatient() -> AsyncIterator[Served]:
    async with serving(READ_TIMEOUT_S) as found:
        yield found


async def talk(served: Served, data: bytes) -> bytes:
    """Send bytes; return all that comes until the server closes."""
    async with served.connected() as (reader, writer):
        writer.write(data)
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize(
    ("server", "data", "status", "message"),
    [
        ("served", b"\x16\x03\x01\r\n\r\n", 400, "Invalid HTTP request"),
        ("served", b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431, "headers are larger than 65536 bytes"),
        ("impatient", b"GET / HTTP/1.1\r\nHos", 408, "no whole request came within 1 s"),
        ("impatient", b"", 408, "no whole request came within 1 s"),
    ],
    ids=["no HTTP", "large headers", "slow headers", "silence"],
)
async def test_request_that_never_becomes_one_is_refused_and_reported(
    served: Served, impatient: Served, server: str, data: bytes, status: int, message: str
) -> None:
    served = impatient if server == "impatient" else served
    head, _, body = (await talk(served, data)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head
    assert message in json.loads(body)["error"]
    (refusal,) = served.refusals
    assert (refusal.protocol, refusal.stage, str(refusal.error)) == ("http", "route", json.loads(body)["error"])


async def test_body_that_never_ends_is_cut_off_and_reported(impatient: Served) -> None:
    assert await talk(impatient, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{") == b""
    assert ["no whole request" in str(refusal.error) for refusal in impatient.refusals] == [True]


async def test_connection_over_the_limit_is_refused_and_reported(served: Served) -> None:
    async with served.connected(), served.connected(), served.connected():
        answer = await talk(served, b"")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert "more than 3 connections are open" in str(served.refusals[0].error)


@pytest.mark.parametrize(
    "requests",
    [REQUEST % b"large", REQUEST % b"large" + REQUEST % b"small", REQUEST % b"large" + REQUEST[:9]],
    ids=["alone", "with a request behind it", "with half a request behind it"],
)
async def test_answer_that_nobody_reads_is_cut_off_and_reported(impatient: Served, requests: bytes) -> None:
    async with impatient.connected() as (reader, writer):
        writer.write(requests)
        await impatient.refused.wait()
        received = b""
        with contextlib.suppress(ConnectionError):
            received = await reader.read()
    assert len(received) < PIECES * len(PIECE)
    assert b"HTTP/1.1 408" not in received
    assert len(impatient.refusals) == 1


async def test_good_clients_are_answered_beside_slow_ones(served: Served) -> None:
    async with served.connected() as (_, slow), served.connected() as (_, unread):
        slow.write(REQUEST[:9])
        unread.write(REQUEST % b"large")
        async with served.connected() as (reader, writer):
            for _ in range(3):
                writer.write(REQUEST % b"small")
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


async def test_requests_behind_one_that_is_being_answered_are_left_unread() -> None:
    waiting: list[int] = []

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, after a look whether the client has left, as the gateway's application does."""
        del scope
        protocol = receive.__self__.on_response.__self__  # type: ignore[attr-defined] # uvicorn's cycle, and ours
        waiting.append(len(protocol.pipeline))
        await receive()
        look = asyncio.ensure_future(receive())
        await asyncio.sleep(0)  # so that it begins
        look.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    request = b"GET /small HTTP/1.1\r\nHost: x\r\nX-Pad: %b\r\n\r\n" % (b"x" * 4000)
    count, most = 1000, 200  # one read of the socket brings about 65
    server = HttpServer(watching, ConnectionLimits(3, 60.0))
    with bind("127.0.0.1", 0, "http_port") as listener:
        await server.start(listener)
        async with connected_to(port_of(listener)) as (reader, writer):
            writer.write(request * count)
            for _ in range(count):
                await reader.readuntil(b"\r\n\r\nok")
        await server.close()
    assert len(waiting) == count
    assert max(waiting) <= most
