"""Small ASGI applications around the translated one: metrics beside it, a token in front of it."""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class WithMetrics:
    """Answers ``GET /metrics`` and passes everything else on."""

    def __init__(self, app: App, render: Callable[[str], tuple[bytes, str]]) -> None:
        """Keep the application and what renders the exposition for an Accept header."""
        self._app = app
        self._render = render

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] != "/metrics" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
        body, content_type = self._render(accept)
        await _send(send, 200, body if scope["method"] == "GET" else b"", content_type)


class TokenGuard:
    """Lets only requests with ``Authorization: Bearer TOKEN`` through."""

    def __init__(self, app: App, token: str) -> None:
        """Keep the application and the token."""
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Handle one request."""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
            return
        body = json.dumps({"error": "the admin listener needs the header 'Authorization: Bearer TOKEN'"}).encode()
        await _send(send, 401, body, "application/json")


async def _send(send: Callable[[Message], Awaitable[None]], status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
