from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from service.frontends.wrappers import TokenGuard, WithMetrics

if TYPE_CHECKING:
    from service.api.asgi import App, Message, Receive, Scope, Send
    from service.api.plane import Refusal


async def inner(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the shape of an application
    await send({"type": "http.response.start", "status": 204, "headers": []})


async def ask(app: App, path: str = "/v2", method: str = "GET", **headers: str) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "path": path, "method": method, "headers": lines}, receive, send)
    return sent


async def test_guard_lets_the_token_through() -> None:
    refusals: list[Refusal] = []
    guard = TokenGuard(inner, "secret", refusals.append)
    assert (await ask(guard, authorization="Bearer secret"))[0]["status"] == 204
    assert refusals == []


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer other"}, {"authorization": "secret"}])
async def test_guard_refuses_and_reports_who_has_no_token(headers: dict[str, str]) -> None:
    refusals: list[Refusal] = []
    start, body = await ask(TokenGuard(inner, "secret", refusals.append), **headers)
    assert start["status"] == 401
    assert dict(start["headers"])[b"www-authenticate"] == b"Bearer"
    assert json.loads(body["body"]) == {"error": str(refusals[0].error)}
    assert [(refusal.protocol, refusal.stage) for refusal in refusals] == [("http", "route")]


@pytest.mark.parametrize(("method", "body"), [("GET", b"text for x"), ("HEAD", b"")])
async def test_metrics_stand_beside_the_application(method: str, body: bytes) -> None:
    async def render(accept: str) -> tuple[bytes, str]:
        return f"text for {accept}".encode(), "text/plain"

    app = WithMetrics(inner, render)
    start, sent = await ask(app, "/metrics", method, accept="x")
    assert dict(start["headers"]) == {b"content-type": b"text/plain", b"content-length": b"10"}
    assert sent["body"] == body
    others: list[tuple[str, Any]] = [("/v2", method), ("/metrics", "POST")]
    for path, other in others:
        assert (await ask(app, path, other))[0]["status"] == 204
