from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from service.frontends.grpc import CallLimits, GrpcServer
from service.frontends.sockets import ListenError

if TYPE_CHECKING:
    from grpc import aio

LIMITS = CallLimits(max_message_bytes=1 << 16, max_calls=10)


async def echo(data: bytes, _: aio.ServicerContext[bytes, bytes]) -> bytes:
    return data


def make_server() -> GrpcServer:
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    return GrpcServer([grpc.method_handlers_generic_handler("test.Service", methods)], LIMITS)


async def test_messages_are_taken_up_to_the_limit() -> None:
    server = make_server()
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Service/Echo")
        assert await call(bytes(1 << 16)) == bytes(1 << 16)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(bytes((1 << 16) + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.close(0)


async def test_a_taken_port_is_a_clear_error() -> None:
    first, second = make_server(), make_server()
    port = await first.start("127.0.0.1", 0)
    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1 port {port}; choose another with --grpc-port"):
        await second.start("127.0.0.1", port)
    await first.close(0)
