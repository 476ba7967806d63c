"""The gRPC side on grpcio's asyncio server: an adapter from the method table to generic handlers."""

from __future__ import annotations

from collections import defaultdict
from contextlib import aclosing
from typing import TYPE_CHECKING, NoReturn

import grpc

from service.api.grpc_errors import grpc_status
from service.api.grpc_methods import CallContext, Method, Stream, Unary, methods, parse, take_request_id
from service.api.plane import ignore_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from grpc import aio

    from service.api.plane import OnRefused, Plane

    Rpc = aio.ServicerContext[bytes, bytes]
    Unaries = Callable[[bytes, Rpc], Awaitable[bytes]]
    Streams = Callable[[AsyncIterator[bytes], Rpc], AsyncIterator[bytes]]


def server_options(max_body_bytes: int) -> Sequence[tuple[str, int]]:
    """Return the options that ``grpc.aio.server`` needs: the same limit as HTTP, both ways."""
    return (
        ("grpc.max_receive_message_length", max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    )


def generic_handlers(
    plane: Plane, *, admin: bool = False, on_refused: OnRefused = ignore_refusal
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return what ``server.add_generic_rpc_handlers`` takes.

    Args:
        plane: What answers.
        admin: Whether models can be loaded and unloaded here; a public listener says no.
        on_refused: Called with the protocol, the request's id and the error for every call that is refused or fails.
    """
    services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = defaultdict(dict)
    for full_name, method in methods(admin=admin).items():
        _, service, name = full_name.split("/")
        services[service][name] = _handler(_Adapter(plane, on_refused), full_name, method)
    return tuple(grpc.method_handlers_generic_handler(service, table) for service, table in services.items())


class _Adapter:
    """Wraps a method of the table as grpcio wants it: bytes in, bytes out, errors by aborting."""

    def __init__(self, plane: Plane, on_refused: OnRefused) -> None:
        self._plane = plane
        self._on_refused = on_refused

    def unary(self, method: Unary) -> Unaries:
        """Return the call of a method with one request and one response."""

        async def call(data: bytes, rpc: Rpc) -> bytes:
            context = _context(rpc, self._on_refused)
            try:
                take_request_id(context)
                response = await method.handler(self._plane, parse(method.request_class, data), context)
            except Exception as error:  # noqa: BLE001 - the last line: every failure becomes a status
                await self._abort(rpc, error, context)
            if context.trailers:
                rpc.set_trailing_metadata(tuple(context.trailers))
            return bytes(response.SerializeToString())

        return call

    def stream(self, method: Stream) -> Streams:
        """Return the call of a method that answers with a stream."""

        async def call(data: AsyncIterator[bytes], rpc: Rpc) -> AsyncIterator[bytes]:
            context = _context(rpc, self._on_refused)
            try:
                take_request_id(context)
                messages = (parse(method.request_class, piece) async for piece in data)
                async with aclosing(method.handler(self._plane, messages, context)) as responses:
                    async for response in responses:
                        yield response.SerializeToString()
            except Exception as error:  # noqa: BLE001 - the last line: every failure becomes a status
                await self._abort(rpc, error, context)

        return call

    async def _abort(self, rpc: Rpc, error: Exception, context: CallContext) -> NoReturn:
        self._on_refused("grpc", context.request_id, error)
        status = grpc_status(error, context.request_id)
        await rpc.abort(status.code, status.message, status.metadata)


def _handler(adapter: _Adapter, full_name: str, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
    """Return grpcio's handler; bytes stay bytes, so that the adapter can say what is wrong with them."""
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(adapter.unary(method))
    call = adapter.stream(method)
    if full_name.endswith("/Watch"):

        async def watch(data: bytes, rpc: Rpc) -> AsyncIterator[bytes]:
            async for piece in call(_once(data), rpc):
                yield piece

        return grpc.unary_stream_rpc_method_handler(watch)
    return grpc.stream_stream_rpc_method_handler(call)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _context(rpc: Rpc, on_refused: OnRefused) -> CallContext:
    metadata = {key: value for key, value in rpc.invocation_metadata() or () if isinstance(value, str)}
    return CallContext(metadata, rpc.time_remaining, on_refused)
