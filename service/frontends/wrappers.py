"""Small ASGI applications around the translated one: metrics beside it, a token in front of it."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from service.api.http_errors import HttpRefused, error_reply
from service.api.http_message import Reply, send_reply
from service.api.names import new_request_id
from service.api.plane import Refusal, ignore_refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.api.asgi import App, Receive, Scope, Send
    from service.api.plane import OnRefused


class WithMetrics:
    """Answers ``GET /metrics`` and passes everything else on."""

    def __init__(self, app: App, render: Callable[[str], Awaitable[tuple[bytes, str]]]) -> None:
        """Keep the application and what renders the exposition for an Accept header."""
        self._app = app
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] != "/metrics" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
        body, content_type = await self._render(accept)
        headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
        await send_reply(send, Reply(200, headers, body), with_body=scope["method"] == "GET")


class TokenGuard:
    """Lets only requests with ``Authorization: Bearer TOKEN`` through; the others are refused and reported."""

    def __init__(self, app: App, token: str, on_refused: OnRefused = ignore_refusal) -> None:
        """Keep the application, the token, and who is told of those without it."""
        self._app = app
        self._on_refused = on_refused
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
            return
        error = HttpRefused(
            401,
            "the admin listener needs the header 'Authorization: Bearer TOKEN'",
            [(b"www-authenticate", b"Bearer")],
        )
        request_id = new_request_id()
        self._on_refused(Refusal("http", request_id, error))
        await send_reply(send, error_reply(error, request_id), with_body=scope["method"] != "HEAD")
