"""What is turned away unparsed stands where a request begins, nowhere else: no later bytes are taken wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.frontends.door import Door
from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.short_way import ShortWay
from service.frontends.sockets import bind, port_of
from service.policy.door import Turns
from tests.service.frontends.connections import connected_to
from tests.service.frontends.test_door import Crowd, Told
from tests.service.frontends.test_short_way import MOST_BODY_BYTES, Handlers, post, read_reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REFUSED = post(b"abc").replace(b"/m/", b"/slow/")
LET_IN = post(b"abc").replace(b"/m/", b"/quick/")
HEALTH = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /v2/models/quick/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Serve a punctual loop before lanes with a crowd, in which ``slow`` models' requests have to go."""
    handlers, told = Handlers(), Told()
    door = Door(Turns(), lambda: 1.0, told.budget_s, told.note, Crowd())
    with bind("127.0.0.1", 0, "http_port") as listener:
        way = ShortWay(handlers.answer, MOST_BODY_BYTES, door)
        server = HttpServer(handlers, ConnectionLimits(10, 60.0), short_way=way)
        await server.start(listener)
        yield port_of(listener)
        await server.close()


async def statuses(port: int, *pieces: bytes) -> list[bytes]:
    """Send each piece when the one before is answered, and return the status lines of all answers."""
    found = []
    async with connected_to(port) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            head, _ = await read_reply(reader)
            found.append(head.partition(b"\r\n")[0].strip())
    return found


OK, BUSY = b"HTTP/1.1 200 OK", b"HTTP/1.1 429"


async def test_whole_request_is_refused_and_its_connection_goes_on(port: int) -> None:
    assert await statuses(port, REFUSED, REFUSED, LET_IN, REFUSED, HEALTH + b"\r\n") == [BUSY, BUSY, OK, BUSY, OK]


@pytest.mark.parametrize("first", [REFUSED, LET_IN])
async def test_rest_of_a_head_that_looks_like_a_request_is_none(port: int, first: bytes) -> None:
    # The request line of the second piece is the value of a header that the first one began.
    found = await statuses(port, first + HEALTH + b"X-A: ", REFUSED)
    assert found == [BUSY if first is REFUSED else OK, OK]


async def test_rest_of_a_body_that_looks_like_a_request_is_none(port: int) -> None:
    body = post(REFUSED).replace(b"/m/", b"/quick/").removesuffix(REFUSED)
    chunk = CHUNKED + b"%x\r\n" % len(REFUSED)
    found = await statuses(port, REFUSED + body, REFUSED + chunk, REFUSED + b"\r\n0\r\n\r\n" + HEALTH + b"\r\n", b"")
    assert found == [BUSY, OK, OK, OK]


async def test_half_a_request_behind_a_refused_one_is_waited_for(port: int) -> None:
    assert await statuses(port, REFUSED, REFUSED + REFUSED[:40], REFUSED[40:], LET_IN) == [BUSY, BUSY, BUSY, OK]
