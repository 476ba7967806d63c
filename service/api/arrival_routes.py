"""The recorded arrivals of a model as CSV: a route of the administrative listener, for tuning on them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from service.api.http_message import HttpRequest, Reply
from service.api.names import split_model_name
from service.domain.errors import NotFound

if TYPE_CHECKING:
    from service.api.http_routes import Route
    from service.api.plane import Plane

ARRIVALS_PATH: Final = "v2/models/{}/arrivals"


class Recorded(Protocol):
    """Who has recorded arrivals."""

    def content(self, model: str) -> bytes:
        """Return a model's arrivals as CSV."""
        ...


def arrival_routes(recorded: Recorded | None) -> tuple[Route, ...]:
    """Return the route that hands out what a gateway recorded; ``None`` where it records nothing."""

    async def read(plane: Plane, request: HttpRequest) -> Reply:
        if recorded is None:
            raise NotFound("this server records no arrivals; start it with --record-arrivals FOLDER")
        model, _pinned = split_model_name(request.captured[0])
        body = await asyncio.to_thread(recorded.content, model)
        if b"\n" not in body.rstrip():
            plane.model_info(model, "")  # nothing is recorded of it: a model that is unknown says so
        headers = [(b"content-type", b"text/csv; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        return Reply(200, headers, body)

    return (("GET", ARRIVALS_PATH, read),)
