"""The gRPC side as an ASGI application, for servers that carry HTTP/2 and send trailers (``http.response.trailers``).

Unary calls whose message is there as a whole can be answered without ASGI, by ``answer``. Messages leave uncompressed.
With ``CombinedApp`` one port serves HTTP and gRPC.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final

from grpc import StatusCode

from service.api.departures import ClientLeft, stream_unless_left, unless_left
from service.api.grpc_errors import GrpcStatus
from service.api.grpc_frames import GrpcReply, decode_timeout, encode_frame, encode_message, read_frames
from service.api.grpc_methods import (
    CallContext,
    Unary,
    first_stage,
    methods,
    no_deadline,
    parse,
    take_request_id,
    unknown_method,
)
from service.api.http_app import DEFAULT_MAX_BODY_BYTES
from service.api.knobs import HEADERS
from service.api.plane import ignore_refusal
from service.api.tracing import TRACE_HEADERS
from service.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from service.api.asgi import Receive, Scope, Send
    from service.api.grpc_methods import Method, Proto, Stream
    from service.api.http_app import HttpApp
    from service.api.plane import OnRefused, Plane
    from service.domain.trace import Tracing

_OK: Final = GrpcStatus(StatusCode.OK, "")
_CONTENT_TYPE: Final = b"application/grpc"
_RESPONSE_HEADERS: Final = [
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
]
_OK_TRAILERS: Final = ((b"grpc-status", b"0"),)
_METADATA: Final = {name.encode(): name for name in HEADERS | {"x-request-id", *TRACE_HEADERS}}


class CombinedApp:
    """Sends each request to the gRPC application or to the HTTP one, by its content type."""

    def __init__(self, http: HttpApp, grpc: GrpcAsgiApp) -> None:
        self._http = http
        self._grpc = grpc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_grpc = scope.get("http_version") != "1.1" and _is_grpc(scope.get("headers", ()))
        await (self._grpc if is_grpc else self._http)(scope, receive, send)


class GrpcAsgiApp:
    """An ASGI 3 application for the gRPC form of the protocol.

    Args:
        plane: What answers.
        max_body_bytes: The largest message taken, counted after decompression.
        admin: Whether models can be loaded and unloaded here; a public listener says no.
        on_refused: Called once for every call that is refused or fails.
        tracing: Decides which requests are traced; ``None`` traces none.
    """

    def __init__(
        self,
        plane: Plane,
        *,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        admin: bool = False,
        on_refused: OnRefused = ignore_refusal,
        tracing: Tracing | None = None,
    ) -> None:
        self._plane = plane
        self.max_message_bytes = max_body_bytes
        self._on_refused = on_refused
        self._tracing = tracing
        self._methods = methods(admin=admin)
        self._unary = {name.encode(): method for name, method in self._methods.items() if isinstance(method, Unary)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        # ASGI servers raise an OSError from ``send`` when the client is gone: there is nobody to answer then.
        with contextlib.suppress(OSError, ClientLeft):
            await self._answer(scope, receive, _Answer(send))

    def is_unary(self, path: bytes) -> bool:
        """Tell whether a path names a method with one request and one response."""
        return path in self._unary

    async def answer(
        self, path: bytes, headers: Mapping[bytes, bytes], message: bytes | memoryview, waited_s: float
    ) -> GrpcReply:
        """Answer a unary call whose message is here as a whole, for servers that can do without ASGI.

        Args:
            path: A path of which ``is_unary`` is true.
            headers: Lower-case names and values.
            message: The message, decompressed and within the limit; nobody may change it afterwards.
            waited_s: How long ago the call began; its deadline counts from there.
        """
        method = self._unary[path]
        context = _context(headers, self._on_refused, method)
        context.tracing = self._tracing
        try:
            take_request_id(context)
            if b"grpc-timeout" in headers:
                context.time_left = _time_left(decode_timeout(headers), waited_s)
            response = await method.handler(self._plane, parse(method.request_class, message), context)
            return GrpcReply(_bytes(response), [*_OK_TRAILERS, *context.trailers], common=context.common)
        except Exception as error:  # noqa: BLE001 - the last line: every failure becomes a status
            return _failed(context.refuse(error))

    def refuse(self, path: bytes, headers: Mapping[bytes, bytes], error: Exception) -> GrpcReply:
        """Refuse a call for a reason that the server has found."""
        return _failed(_context(headers, self._on_refused, self._unary.get(path)).refuse(error))

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        method = self._methods.get(scope["path"])
        context = _context(headers, self._on_refused, method)
        context.tracing = self._tracing
        try:
            take_request_id(context)
            context.time_left = _time_left(decode_timeout(headers))
            if method is None:
                raise unknown_method(scope["path"])  # noqa: TRY301 - it is answered like every other failure
            if isinstance(method, Unary):
                frames = read_frames(receive, headers, self.max_message_bytes)
                request = parse(method.request_class, await _only(frames))
                await answer.message(await unless_left(method.handler(self._plane, request, context), receive))
            else:
                work = partial(self._stream, method, headers, context, answer)
                on_read = scope.get("extensions", {}).get("tiergate.read", lambda _: None)  # our own server's
                await stream_unless_left(work, receive, on_read)
        except (ClientLeft, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - the last line: every failure becomes a status
            await answer.finish(context.refuse(error))
            return
        await answer.finish(_OK, [*context.common, *context.trailers])

    async def _stream(
        self, method: Stream, headers: Mapping[bytes, bytes], context: CallContext, answer: _Answer, receive: Receive
    ) -> None:
        frames = read_frames(receive, headers, self.max_message_bytes)
        messages = (parse(method.request_class, frame) async for frame in frames)
        async with aclosing(method.handler(self._plane, messages, context)) as responses:
            async for response in responses:
                await answer.message(response)


class _Answer:
    """Sends one call's answer: headers once, then messages, then the status as trailers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_started = False

    async def message(self, message: Proto) -> None:
        await self._start()
        frame = encode_frame(_bytes(message))
        await self._send({"type": "http.response.body", "body": frame, "more_body": True})

    async def finish(self, status: GrpcStatus, trailers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        await self._start()
        lines = [*_status_lines(status), *trailers]
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        await self._send({"type": "http.response.trailers", "headers": lines, "more_trailers": False})

    async def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            start = {"type": "http.response.start", "status": 200, "headers": _RESPONSE_HEADERS, "trailers": True}
            await self._send(start)


def _status_lines(status: GrpcStatus) -> list[tuple[bytes, bytes]]:
    lines = [(b"grpc-status", b"%d" % status.code.value[0])]
    if status.message:
        lines.append((b"grpc-message", encode_message(status.message)))
    return lines + [(name.encode(), value.encode()) for name, value in status.metadata]


def _bytes(response: Proto) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _failed(status: GrpcStatus) -> GrpcReply:
    return GrpcReply(b"", _status_lines(status), is_failed=True)


async def _only(frames: AsyncIterator[bytes]) -> bytes:
    messages = [frame async for frame in frames]
    if len(messages) != 1:
        raise InvalidRequest(f"the call has {len(messages)} messages; this method takes one")
    return messages[0]


def _is_grpc(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(_CONTENT_TYPE) for name, value in headers)


def _context(headers: Mapping[bytes, bytes], on_refused: OnRefused, method: Method | None) -> CallContext:
    metadata = {}
    if not _METADATA.keys().isdisjoint(headers):
        metadata = {key: headers[name].decode("latin-1") for name, key in _METADATA.items() if name in headers}
    return CallContext(metadata, on_refused=on_refused, stage=first_stage(method))


def _time_left(timeout_s: float | None, waited_s: float = 0.0) -> Callable[[], float | None]:
    if timeout_s is None:
        return no_deadline
    now = asyncio.get_running_loop().time
    deadline = now() + timeout_s - waited_s
    return lambda: deadline - now()
