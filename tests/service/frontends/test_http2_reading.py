"""Messages over real sockets are answered as they were sent, however they come: the server reads into one buffer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from service.api.grpc_frames import GrpcReply
from service.frontends import http2_frames as wire
from service.frontends.grpc import CallLimits, GrpcServer
from service.frontends.http2_frames import frame, header_block, number_frame, settings_frame
from service.frontends.sockets import bind, port_of
from tests.service.frontends.connections import connected_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.api.asgi import Receive, Scope, Send

PATH = b"/test.Service/Sum"
MOST_MESSAGE_BYTES = 1 << 22
ROOM = 1 << 24
START = wire.PREFACE + settings_frame([(wire.INITIAL_WINDOW_SIZE, ROOM)]) + number_frame(wire.WINDOW_UPDATE, 0, ROOM)


class Mirror:
    """Sends a message back, reversed."""

    max_message_bytes = MOST_MESSAGE_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer nothing: all calls here are unary."""

    def is_unary(self, path: bytes) -> bool:
        return path == PATH

    async def answer(self, path: bytes, headers: wire.Headers, message: bytes | memoryview, _: float) -> GrpcReply:
        del path, headers
        await asyncio.sleep(0)  # others are read meanwhile
        return GrpcReply(bytes(message)[::-1], [(b"grpc-status", b"0")])

    def refuse(self, path: bytes, headers: wire.Headers, error: Exception) -> GrpcReply:
        del path, headers
        return GrpcReply(b"", [(b"grpc-status", b"8"), (b"grpc-message", str(error).encode())], is_failed=True)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = GrpcServer(Mirror(), CallLimits(8, 100, 60.0))
    with bind("127.0.0.1", 0, "grpc_port") as listener:
        await server.start(listener)
        yield port_of(listener)
        await server.close(0)


def call(stream: int, message: bytes, frame_bytes: int) -> bytes:
    """Return the frames of a whole call."""
    headers = [(b":method", b"POST"), (b":path", PATH), (b"content-type", b"application/grpc")]
    body = b"\0" + len(message).to_bytes(4, "big") + message
    pieces = [body[start : start + frame_bytes] for start in range(0, len(body), frame_bytes)]
    frames = [frame(wire.HEADERS, wire.END_HEADERS, stream, header_block(headers))]
    frames += [frame(wire.DATA, 0, stream, piece) for piece in pieces[:-1]]
    return b"".join([*frames, frame(wire.DATA, wire.END_STREAM, stream, pieces[-1])])


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return the message of the next answer; DATA frames of one answer come together."""
    found = b""
    while True:
        high, low, kind, flags, _ = wire.FRAME_HEAD.unpack(await reader.readexactly(wire.FRAME_HEAD.size))
        payload = await reader.readexactly(high << 8 | low)
        if kind == wire.DATA:
            found += payload
        if kind == wire.HEADERS and flags & wire.END_STREAM:
            return found[5:]


def message(seed: int, size: int) -> bytes:
    return bytes((seed + index * index) % 251 for index in range(size))


@pytest.mark.parametrize("frame_bytes", [1000, 16_384, 1 << 18])
async def test_long_message_in_frames_of_any_size_is_read_as_it_was_sent(port: int, frame_bytes: int) -> None:
    sent = message(1, 60_000) * 10
    async with connected_to(port) as (reader, writer):
        writer.write(START + call(1, sent, frame_bytes) + call(3, sent[:70_000], frame_bytes))
        assert await answer(reader) == sent[::-1]
        assert await answer(reader) == sent[:70_000][::-1]


async def test_frame_that_one_connection_has_half_sent_is_not_touched_by_what_another_sends(port: int) -> None:
    first, second = message(2, 40_000), message(3, 40_000)
    data = START + call(1, first, 16_384)
    async with contextlib.AsyncExitStack() as stack:
        reader, writer = await stack.enter_async_context(connected_to(port))
        other_reader, other_writer = await stack.enter_async_context(connected_to(port))
        other_writer.write(START)
        for number, cut in enumerate(range(0, len(data), 7001)):
            writer.write(data[cut : cut + 7001])
            await writer.drain()
            other_writer.write(call(2 * number + 1, second, 16_384))
            assert await answer(other_reader) == second[::-1]
        assert await answer(reader) == first[::-1]


async def test_message_over_the_limit_is_refused_and_one_of_just_the_limit_is_not(port: int) -> None:
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        ask: Any = channel.unary_unary(PATH.decode())
        assert await ask(bytes(MOST_MESSAGE_BYTES)) == bytes(MOST_MESSAGE_BYTES)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(bytes(MOST_MESSAGE_BYTES + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(MOST_MESSAGE_BYTES) in str(caught.value.details())
