"""gRPC by our own HTTP/2 server: as many calls as one process can answer, within limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.api.http_errors import HttpRefused
from service.api.plane import Refusal, ignore_refusal
from service.domain.errors import Overloaded
from service.frontends.http2 import Connection

if TYPE_CHECKING:
    import socket
    import ssl

    from service.api.plane import OnRefused
    from service.frontends.door import Door
    from service.frontends.http2_host import Calls

_RETRY_S = 1.0
_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many connections and calls may be open, and how long a client may take to send a call or read its answer."""

    max_connections: int
    max_calls: int
    read_timeout_s: float


class GrpcServer:
    """gRPC calls on one listening socket, in the running event loop; it is the ``Host`` of its connections.

    ``on_refused`` hears of the connections and calls that are cut off.
    """

    def __init__(
        self, calls: Calls, limits: CallLimits, on_refused: OnRefused = ignore_refusal, door: Door | None = None
    ) -> None:
        """Configure; ``start`` listens. ``door`` turns inferences away before they are decoded."""
        self.door = door
        self.calls = calls
        self.read_timeout_s = limits.read_timeout_s
        self.read_buffer = memoryview(bytearray(_READ_BYTES))
        self._limits = limits
        self._on_refused = on_refused
        self._connections: set[Connection] = set()
        self._open_calls = 0
        self._server: asyncio.Server | None = None
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve the socket until ``close``."""
        loop = asyncio.get_running_loop()
        handshake_s = None if tls is None else self.read_timeout_s
        self._server = await loop.create_server(
            lambda: Connection(self, self._lost), sock=listener, ssl=tls, ssl_handshake_timeout=handshake_s
        )

    def leave(self) -> None:
        """Take no new connections and no new calls: clients are told to go elsewhere before anything is refused."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.leave()

    async def close(self, grace_s: float) -> None:
        """Take no new calls and return when the last one is answered, or after the grace."""
        self.leave()
        try:
            async with asyncio.timeout(grace_s):
                await self._is_empty.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.transport.abort()

    def admit(self, connection: Connection) -> bool:
        """Count a connection; tell whether it may stay."""
        self._connections.add(connection)
        self._is_empty.clear()
        if len(self._connections) <= self._limits.max_connections:
            return True
        self.note(f"more than {self._limits.max_connections} connections are open")
        return False

    def enter(self) -> Exception | None:
        """Count one more open call, or return why there may be none."""
        if self._open_calls >= self._limits.max_calls:
            return Overloaded(f"more than {self._limits.max_calls} calls are open", _RETRY_S)
        self._open_calls += 1
        return None

    def exit(self) -> None:
        """Count one call less."""
        self._open_calls -= 1

    def note(self, message: str) -> None:
        """Report what a client did that ends its call or its connection."""
        self._on_refused(Refusal("grpc", "", HttpRefused(400, message)))

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()
