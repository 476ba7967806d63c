"""Listening sockets."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from service.frontends.sockets import bind, cut, port_of


async def test_connection_holds_no_write_back_until_the_one_before_is_acknowledged() -> None:
    listener = bind("127.0.0.1", 0, "http_port")
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(connected, sock=listener):
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
        assert await found != 0
        writer.close()
        await writer.wait_closed()


def test_connection_that_is_closed_already_is_cut_without_a_word() -> None:
    async def cut_after_the_end() -> bool:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        async with server:
            transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            cut(transport)
            return transport.is_closing()

    assert uvloop.run(cut_after_the_end())
    assert asyncio.run(cut_after_the_end())
