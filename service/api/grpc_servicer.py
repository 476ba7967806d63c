"""The gRPC side on grpcio's asyncio server: an adapter from the method table to generic handlers.

grpcio answers some calls before any handler sees them: a message over the limit (RESOURCE_EXHAUSTED), a call over the
most that may be open, metadata over its limit. Nobody is told of those, so they are neither logged nor counted here.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import aclosing
from typing import TYPE_CHECKING, NoReturn

import grpc

from service.api.grpc_methods import (
    CallContext,
    Method,
    Stream,
    Unary,
    first_stage,
    methods,
    parse,
    take_request_id,
    unknown_method,
)
from service.api.plane import ignore_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from grpc import aio

    from service.api.plane import OnRefused, Plane

    Rpc = aio.ServicerContext[bytes, bytes]
    Unaries = Callable[[bytes, Rpc], Awaitable[bytes]]
    Streams = Callable[[AsyncIterator[bytes], Rpc], AsyncIterator[bytes]]


def generic_handlers(
    plane: Plane, *, admin: bool = False, on_refused: OnRefused = ignore_refusal
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return what ``server.add_generic_rpc_handlers`` takes; the last one answers calls to methods that are unknown.

    Args:
        plane: What answers.
        admin: Whether models can be loaded and unloaded here; a public listener says no.
        on_refused: Called once for every call that is refused or fails.
    """
    adapter = _Adapter(plane, on_refused)
    services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = defaultdict(dict)
    for full_name, method in methods(admin=admin).items():
        _, service, name = full_name.split("/")
        services[service][name] = _handler(adapter, full_name, method)
    known = [grpc.method_handlers_generic_handler(service, table) for service, table in services.items()]
    return (*known, _UnknownMethods(adapter))


class _UnknownMethods(grpc.GenericRpcHandler):
    """Takes every call, and so must come last."""

    def __init__(self, adapter: _Adapter) -> None:
        self._adapter = adapter

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.stream_stream_rpc_method_handler(self._adapter.unknown(handler_call_details.method))


class _Adapter:
    """Wraps a method of the table as grpcio wants it: bytes in, bytes out, errors by aborting."""

    def __init__(self, plane: Plane, on_refused: OnRefused) -> None:
        self._plane = plane
        self._on_refused = on_refused

    def unary(self, method: Unary) -> Unaries:
        """Return the call of a method with one request and one response."""

        async def call(data: bytes, rpc: Rpc) -> bytes:
            context = _context(rpc, self._on_refused, method)
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
            context = _context(rpc, self._on_refused, method)
            try:
                take_request_id(context)
                messages = (parse(method.request_class, piece) async for piece in data)
                async with aclosing(method.handler(self._plane, messages, context)) as responses:
                    async for response in responses:
                        yield response.SerializeToString()
            except Exception as error:  # noqa: BLE001 - the last line: every failure becomes a status
                await self._abort(rpc, error, context)

        return call

    def unknown(self, path: str) -> Callable[[AsyncIterator[bytes], Rpc], Awaitable[None]]:
        """Return the call of a method that is not in the table."""

        async def call(_: AsyncIterator[bytes], rpc: Rpc) -> None:
            await self._abort(rpc, unknown_method(path), _context(rpc, self._on_refused))

        return call

    async def _abort(self, rpc: Rpc, error: Exception, context: CallContext) -> NoReturn:
        status = context.refuse(error)
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


def _context(rpc: Rpc, on_refused: OnRefused, method: Method | None = None) -> CallContext:
    metadata = {key: value for key, value in rpc.invocation_metadata() or () if isinstance(value, str)}
    return CallContext(metadata, rpc.time_remaining, on_refused, stage=first_stage(method))
