"""The short way of infer requests through the HTTP server: the same answers, and the same manners, as the long way."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from service.api.http_message import Reply
from service.engine.prompt import PromptFuture
from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.short_way import Driver, ShortWay
from service.frontends.sockets import bind, port_of
from tests.service.frontends.connections import connected_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from service.api.asgi import Receive, Scope, Send

MOST_BODY_BYTES = 1 << 20
READ_TIMEOUT_S = 1.0
"""Of servers that are to cut somebody off: longer than a busy machine takes for the first bytes of a connection."""
EITHER_WAY = pytest.mark.parametrize("lines", [(), ("Connection: keep-alive",)], ids=["whole", "parsed"])
"""Header lines with which a request in one piece is taken unparsed, and with which it is left to the parser."""


@dataclass
class Handlers:
    """Answers by the short way what its body says, and by the long way ``long``; ``wait`` waits until ``go``."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[tuple[str, bytes | None]] = field(default_factory=list)

    async def answer(self, path: str, headers: dict[bytes, bytes], body: bytes) -> Reply:
        self.seen.append((path, headers.get(b"tell")))
        if body == b"wait":
            self.entered.set()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.left.set()
                raise
        if body == b"refuse":
            return Reply(413, [(b"connection", b"close"), (b"content-length", b"2")], b"no")
        return Reply(200, [(b"content-length", b"%d" % len(body))], bytes(body), head=b"x-short: yes\r\n")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"long"})


@dataclass
class Served:
    """A running server and its handlers."""

    handlers: Handlers
    server: HttpServer
    port: int = 0

    def connected(self) -> AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return connected_to(self.port)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(60.0) as found:
        yield found


@pytest.fixture
async def impatient() -> AsyncIterator[Served]:
    async with serving(READ_TIMEOUT_S) as found:
        yield found


@contextlib.asynccontextmanager
async def serving(read_timeout_s: float) -> AsyncIterator[Served]:
    handlers = Handlers()
    way = ShortWay(handlers.answer, MOST_BODY_BYTES)
    server = HttpServer(handlers, ConnectionLimits(10, read_timeout_s), short_way=way)
    with bind("127.0.0.1", 0, "http_port") as listener:
        found = Served(handlers, server, port_of(listener))
        await server.start(listener)
        yield found
        handlers.go.set()
        await server.close()


def post(body: bytes, *lines: str, path: str = "/v2/models/m/infer", version: str = "1.1") -> bytes:
    head = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def read_reply(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the head and the body of one reply."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    return head, await reader.readexactly(int(length.partition(b": ")[2]))


async def ask(served: Served, data: bytes) -> tuple[bytes, bytes]:
    async with served.connected() as (reader, writer):
        writer.write(data)
        return await read_reply(reader)


@EITHER_WAY
async def test_plain_infer_request_goes_the_short_way_with_its_path_headers_and_body(
    served: Served, lines: Sequence[str]
) -> None:
    head, body = await ask(served, post(b"abc", "TELL: it", *lines))
    assert body == b"abc"
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-short: yes\r\n" in head
    assert b"date: " in head
    assert served.handlers.seen == [("/v2/models/m/infer", b"it")]


@EITHER_WAY
async def test_plain_request_in_one_piece_is_not_parsed_and_one_after_it_may_be(
    served: Served, lines: Sequence[str]
) -> None:
    async with served.connected() as (reader, writer):
        writer.write(post(b"abc", *lines))
        assert (await read_reply(reader))[1] == b"abc"
        (protocol,) = served.server._server.server_state.connections
        assert hasattr(protocol, "url") == bool(lines)  # which the parser tells
        for data in (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", post(b"def"), post(b"ghi", *lines)):
            writer.write(data)
            await read_reply(reader)
    assert len(served.handlers.seen) == 3


LONG = {
    "another path": post(b"abc", path="/v2/models/m/inferno"),
    "a query": post(b"abc", path="/v2/models/m/infer?a=/infer"),
    "an escape": post(b"abc", path="/v2/models/%6d/infer"),
    "a coding": post(b"abc", "Content-Encoding: gzip"),
    "chunks": b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "HTTP/1.0": post(b"abc", version="1.0"),
    "a body over the limit": post(bytes(MOST_BODY_BYTES + 1)),
    "no length": b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET": b"GET /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", LONG)
async def test_what_is_not_plain_goes_the_long_way(served: Served, name: str) -> None:
    _, body = await ask(served, LONG[name])
    assert (body, served.handlers.seen) == (b"long", [])


async def test_expected_continue_is_sent_before_the_long_way(served: Served) -> None:
    async with served.connected() as (reader, writer):
        writer.write(post(b"abc", "Expect: 100-continue").removesuffix(b"abc"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await read_reply(reader))[1] == b"long"


async def test_body_in_many_pieces_arrives_whole(served: Served) -> None:
    sent = bytes(range(256)) * 2000
    async with served.connected() as (reader, writer):
        data = post(sent)
        for start in range(0, len(data), 50_000):
            writer.write(data[start : start + 50_000])
            await writer.drain()
        assert (await read_reply(reader))[1] == sent


async def test_pipelined_requests_are_answered_in_order_by_either_way(served: Served) -> None:
    served.handlers.go.set()
    requests = [post(b"one"), post(b"wait"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", post(b"two"), post(b"three")]
    async with served.connected() as (reader, writer):
        writer.write(b"".join(requests))
        bodies = [(await read_reply(reader))[1] for _ in requests]
    assert [bodies[0], bodies[1], bodies[2]] == [b"one", b"wait", b"long"]
    assert len(bodies) == len(requests)


@EITHER_WAY
async def test_request_behind_one_that_waits_is_answered_after_it(served: Served, lines: Sequence[str]) -> None:
    async with served.connected() as (reader, writer):
        writer.write(post(b"wait", *lines))
        await served.handlers.entered.wait()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        served.handlers.go.set()
        assert [(await read_reply(reader))[1] for _ in range(2)] == [b"wait", b"long"]


@EITHER_WAY
async def test_client_that_leaves_cancels_the_work(served: Served, lines: Sequence[str]) -> None:
    async with served.connected() as (_, writer):
        writer.write(post(b"wait", *lines))
        await served.handlers.entered.wait()
    await served.handlers.left.wait()


@pytest.mark.parametrize("line", ["Connection: close", "X: y"])
async def test_connection_is_closed_when_the_client_asks_and_kept_when_not(served: Served, line: str) -> None:
    async with served.connected() as (reader, writer):
        writer.write(post(b"abc", line))
        head, _ = await read_reply(reader)
        closes = line == "Connection: close"
        assert (b"connection: close" in head) is closes
        if closes:
            assert await reader.read() == b""
        else:
            writer.write(post(b"more"))
            assert (await read_reply(reader))[1] == b"more"


@EITHER_WAY
async def test_refusal_that_closes_is_sent_whole_and_closes(served: Served, lines: Sequence[str]) -> None:
    async with served.connected() as (reader, writer):
        writer.write(post(b"refuse", *lines))
        head, body = await read_reply(reader)
        assert (head.split(b" ")[1], body, await reader.read()) == (b"413", b"no", b"")


async def test_body_that_never_ends_is_cut_off(impatient: Served) -> None:
    async with impatient.connected() as (reader, writer):
        writer.write(post(b"abc")[:-1])
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    assert impatient.handlers.seen == []


@EITHER_WAY
async def test_closing_finishes_what_is_inside(served: Served, lines: Sequence[str]) -> None:
    async with served.connected() as (reader, writer):
        writer.write(post(b"wait", *lines))
        await served.handlers.entered.wait()
        closing = asyncio.create_task(served.server.close())
        await asyncio.sleep(0)
        served.handlers.go.set()
        assert (await read_reply(reader))[1] == b"wait"
        assert await reader.read() == b""
        await closing


@pytest.mark.parametrize("data", [post(b"abc"), b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["whole", "parsed"])
async def test_connection_on_which_only_an_empty_line_came_behind_an_answer_is_unused(
    served: Served, data: bytes
) -> None:
    async with served.connected() as (reader, writer):
        writer.write(data)
        await read_reply(reader)
        (protocol,) = served.server._server.server_state.connections
        protocol.data_received(b"\r\n")
        assert protocol._unused.is_set()  # type: ignore[union-attr] # our own kind of connection
        protocol.data_received(b"P")
        assert not protocol._unused.is_set()  # type: ignore[union-attr] # as above


async def test_driver_runs_to_the_end_without_a_task_where_nothing_waits() -> None:
    async def work() -> int:
        return 7

    done: list[int] = []
    Driver(asyncio.get_running_loop(), work(), done.append)
    assert done == [7]


async def test_driver_goes_on_within_the_end_of_what_tells_at_once() -> None:
    awaited: PromptFuture[int] = PromptFuture(asyncio.get_running_loop())

    async def work() -> int:
        return await awaited + 1

    done: list[int] = []
    Driver(asyncio.get_running_loop(), work(), done.append)
    awaited.end(7)
    assert done == [8]


async def test_driver_goes_on_after_futures_and_turns_of_the_loop() -> None:
    first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        found = await first
        await asyncio.sleep(0)
        try:
            await asyncio.gather(_fail())
        except ValueError:
            return found + 1
        return 0

    Driver(asyncio.get_running_loop(), work(), done.set_result)
    first.set_result(1)
    assert await done == 2


async def _fail() -> None:
    raise ValueError


@pytest.mark.parametrize("first", [post(b"wait"), post(b"wait") + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_garbage_behind_an_unanswered_request_does_not_lose_its_answer(served: Served, first: bytes) -> None:
    async with served.connected() as (reader, writer):
        writer.write(first + b"garbage\r\n\r\n")
        await served.handlers.entered.wait()
        served.handlers.go.set()
        assert (await read_reply(reader))[1] == b"wait"
        if b"GET" in first:
            assert (await read_reply(reader))[1] == b"long"
        assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 400 ")
        assert await reader.read() == b""


async def test_request_that_cannot_be_sent_on_because_of_the_one_before_is_not_timed_out(impatient: Served) -> None:
    first_part = post(b"late", path="/v2/other")[:-2]
    async with impatient.connected() as (reader, writer):
        writer.write(post(b"wait") + first_part)
        await impatient.handlers.entered.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * READ_TIMEOUT_S):
                assert await reader.read(1) == b"nothing"
        impatient.handlers.go.set()
        assert (await read_reply(reader))[1] == b"wait"
        writer.write(b"te")
        assert (await read_reply(reader))[1] == b"long"


async def test_client_that_could_not_send_on_has_the_whole_time_for_the_rest_afterwards(served: Served) -> None:
    rest = b"e"
    async with served.connected() as (reader, writer):
        writer.write(post(b"wait") + post(b"late", path="/v2/other").removesuffix(rest))
        await served.handlers.entered.wait()
        (protocol,) = served.server._server.server_state.connections
        before_s = protocol._slow_request._due_s  # type: ignore[union-attr] # our own kind of connection
        served.handlers.go.set()
        assert (await read_reply(reader))[1] == b"wait"
        assert protocol._slow_request._due_s > before_s  # type: ignore[union-attr] # as above
        writer.write(rest)
        assert (await read_reply(reader))[1] == b"long"
