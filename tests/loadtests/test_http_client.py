"""The HTTP sender against servers that behave, and servers that do not."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from loadtests.clients.http import HttpSender
from loadtests.recording import Status
from tests.loadtests.doubles import Ears, job_for, tcp_server

ANSWER = (
    b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,3],"data":[0.1,0.7,0.2]}],"parameters":{"variant":"full"}}'
)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
    return head, await reader.readexactly(length)


def reply(status: int, body: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


async def test_http_carries_row_and_knobs_and_reads_the_answer() -> None:
    seen: list[tuple[str, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(reply(200, ANSWER))
        await writer.drain()

    async with tcp_server(serve) as address:
        ears = Ears(1)
        sender = HttpSender(job_for(address, "http-json"), ears)
        await sender.open()
        sender.send(0, 1, 2)
        assert await ears.statuses() == [Status.OK]
        await sender.close()
    head, body = seen[0]
    assert head.startswith("POST /v2/models/sums--distilled/infer HTTP/1.1\r\n")
    for line in ("x-latency-budget-ms: 20", "x-client-hardware: mobile", "x-criticality: critical"):
        assert f"\r\n{line}\r\n" in head
    assert b'"data": [8.0, 9.0, 10.0, 11.0]' in body
    found = ears.heard[0][1]
    assert found is not None
    assert (found.answer, found.variant) == (1, "full")
    assert np.isnan(found.predicted_s)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (reply(429, b"{}"), Status.SHED),
        (reply(504, b"{}"), Status.EXPIRED),
        (reply(503, b"{}"), Status.NOT_READY),
        (reply(404, b"{}"), Status.INVALID),
        (reply(500, b"{}"), Status.FAILED),
        (reply(200, b"{}"), Status.UNREADABLE),
        (reply(200, b'{"outputs":[]}'), Status.UNREADABLE),
        (b"SSH-2.0-OpenSSH\r\n", Status.UNREADABLE),
        (b"", Status.LOST_CONNECTION),
        (b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\n{", Status.LOST_CONNECTION),
    ],
)
async def test_every_way_to_fail_has_its_own_status(content: bytes, status: Status) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(content)
        await writer.drain()

    async with tcp_server(serve) as address:
        ears = Ears(1)
        sender = HttpSender(job_for(address, "http-json"), ears)
        await sender.open()
        sender.send(0, 0, 0)
        assert await ears.statuses() == [status]
        await sender.close()


async def test_requests_beyond_the_open_connections_are_not_held_back() -> None:
    inside = 0
    all_inside = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal inside
        while True:
            await read_request(reader)
            inside += 1
            if inside == 40:
                all_inside.set()
            await all_inside.wait()  # nobody is answered before everybody has asked
            writer.write(reply(200, ANSWER))

    async with tcp_server(serve) as address:
        ears = Ears(40)
        sender = HttpSender(job_for(address, "http-json", connections=4), ears)
        await sender.open()
        for index in range(40):
            sender.send(index, 0, 0)
        assert await ears.statuses() == [Status.OK] * 40
        assert sender.opened == 40
        await sender.close()


async def test_a_request_without_an_answer_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        del writer

    async with tcp_server(serve) as address:
        ears = Ears(2)
        sender = HttpSender(job_for(address, "http-json", timeout_s=0.01), ears)
        await sender.open()
        sender.send(0, 0, 0)
        sender.send(1, 0, 0)
        assert await ears.statuses() == [Status.TIMED_OUT] * 2
        await sender.close()


async def test_a_connection_that_cannot_be_made_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        del writer

    async with tcp_server(serve) as address:
        ears = Ears(1)
        sender = HttpSender(job_for(address, "http-json", connections=0), ears)
        await sender.open()
    sender.send(0, 0, 0)
    assert await ears.statuses() == [Status.NO_CONNECTION]
    await sender.close()
