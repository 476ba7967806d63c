"""What an HTTP/2 connection needs of the server that it belongs to, and of the application that answers its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from service.api.asgi import Receive, Scope, Send
    from service.api.grpc_frames import GrpcReply
    from service.frontends import http2_frames as wire
    from service.frontends.door import Door
    from service.frontends.http2 import Connection


class Calls(Protocol):
    """What answers calls: all of them as ASGI, and those to paths of which ``is_unary`` is true by ``answer`` too."""

    max_message_bytes: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call as ASGI."""
        ...

    def is_unary(self, path: bytes) -> bool:
        """Tell whether the path's method has one request and one response."""
        ...

    def answer(
        self, path: bytes, headers: wire.Headers, message: bytes | memoryview, waited_s: float
    ) -> Coroutine[Any, Any, GrpcReply]:
        """Answer a call whose message is here, and which began ``waited_s`` ago."""
        ...

    def refuse(self, path: bytes, headers: wire.Headers, error: Exception) -> GrpcReply:
        """Refuse a call for the server's own reason."""
        ...


class Host(Protocol):
    """The server, as its connections see it; what one of them reads lies in ``read_buffer`` until another one reads."""

    calls: Calls
    read_timeout_s: float
    read_buffer: memoryview
    door: Door | None

    def admit(self, connection: Connection) -> bool:
        """Tell whether one more connection may be open."""
        ...

    def enter(self) -> Exception | None:
        """Count one more open call, or return why there may be none."""
        ...

    def exit(self) -> None:
        """Count one call less."""
        ...

    def note(self, message: str) -> None:
        """Report what a client did that ends its call or its connection."""
        ...
