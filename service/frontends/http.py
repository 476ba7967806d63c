"""HTTP/1.1 by uvicorn, with the limits that uvicorn leaves to a proxy in front.

uvicorn waits for ever for a slow client, takes headers of any size, and answers what is not HTTP in plain text. Behind
a proxy that is fine; a gateway that may stand in the open bounds each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

_MOST_HEADER_BYTES: Final = 64 * 1024
_KEEP_ALIVE_S: Final = 75


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be, and how long a client may take to send a request or to read its answer."""

    max_connections: int
    read_timeout_s: float


class HttpServer:
    """One ASGI application on one listening socket, in the running event loop."""

    def __init__(self, app: Callable[..., Awaitable[None]], limits: ConnectionLimits) -> None:
        """Configure; ``start`` listens."""
        config = uvicorn.Config(
            app,
            http=functools.partial(_GuardedProtocol, limits=limits),  # type: ignore[arg-type] # a factory serves as well
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve the socket until ``close``."""
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.is_listening.wait()

    async def close(self) -> None:
        """Stop accepting, close idle connections, and return when the last answer is out."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The program handles its signals itself: one drain for all listeners.
        yield


class _GuardedProtocol(HttpToolsProtocol):
    def __init__(self, *arguments: Any, limits: ConnectionLimits, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._limits = limits
        self._header_bytes = 0
        self._is_in_headers = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, f"more than {self._limits.max_connections} connections are open")
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._is_in_headers and self._header_bytes > _MOST_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the headers are larger than {_MOST_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._watch()

    def on_headers_complete(self) -> None:
        self._is_in_headers, self._header_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_headers = True
        self._unwatch()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        self._unwatch()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _watch(self) -> None:
        self._unwatch()
        self._timer = self.loop.call_later(self._limits.read_timeout_s, self._give_up)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._is_in_headers:
            self._refuse(408, f"no whole request came within {self._limits.read_timeout_s:g} s")
        else:
            # A body that never ends, or an answer that nobody reads: an error could not be told apart from it.
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        head = (
            f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
