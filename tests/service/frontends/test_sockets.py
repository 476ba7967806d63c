"""Listening sockets."""

from __future__ import annotations

import asyncio
import socket

from service.frontends.sockets import bind, port_of


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
