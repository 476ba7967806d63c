"""An HTTP request and reply, as the routes see them, and how a reply leaves through ASGI."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from service.api.asgi import Send

Headers = list[tuple[bytes, bytes]]

JSON_TYPE: Final = (b"content-type", b"application/json")

_encode_json: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request; ``headers`` has lower-case names, and ``captured`` the path's variable segments in order."""

    method: str
    headers: dict[bytes, bytes]
    query: bytes
    body: Callable[[], Awaitable[bytes]]
    captured: tuple[str, ...] = ()


class BodyStream(Protocol):
    """A body in pieces; who gets one closes it, read or not."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Start."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; ``stream`` gives the body in pieces where it is not at hand as a whole.

    ``head`` holds further headers as lines that are ready to be sent, each with its line end.
    """

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    stream: BodyStream | None = None
    head: bytes = b""

    @property
    def all_headers(self) -> Headers:
        """Every header as a pair."""
        if not self.head:
            return self.headers
        pairs = (line.split(b": ", 1) for line in self.head.split(b"\r\n")[:-1])
        return [*self.headers, *((name, value) for name, value in pairs)]


def json_reply(content: Any, status: int = 200, headers: Headers | None = None) -> Reply:  # noqa: ANN401 - JSON
    """Return a reply with a JSON body."""
    body = _encode_json(content)
    lines = [JSON_TYPE, (b"content-length", b"%d" % len(body)), *(headers or ())]
    return Reply(status, lines, body)


async def send_reply(send: Send, reply: Reply, *, with_body: bool = True) -> None:
    """Send a reply, without its body where the request was HEAD, and close its stream."""
    if reply.stream is not None:
        with contextlib.closing(reply.stream):
            return await _send_stream(send, reply, reply.stream if with_body else None)
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.all_headers})
    return await send({"type": "http.response.body", "body": reply.body if with_body else b""})


async def _send_stream(send: Send, reply: Reply, stream: BodyStream | None) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.all_headers})
    if stream is not None:
        async for piece in stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
