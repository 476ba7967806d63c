"""Errors as HTTP: one table from error class to status, and the body ``{"error": "..."}`` that clients expect.

What only HTTP can refuse (a method, a range, a missing token, a connection that never says a whole request) is an
``HttpRefused`` and brings its status along.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from service.api.http_message import Reply, json_reply
from service.domain.errors import (
    AdminOnly,
    BackendFailed,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NotFound,
    NotSupported,
    Overloaded,
    PayloadTooLarge,
    PolicyChanged,
    PolicyNotKept,
    RemoteBackendFailed,
    RemoteUnavailable,
    TiergateError,
    UnsupportedMedia,
    VariantNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.api.http_message import Headers

HTTP_STATUS: Final[Mapping[type[TiergateError], int]] = {
    TiergateError: 500,
    InvalidRequest: 400,
    UnsupportedMedia: 415,
    PayloadTooLarge: 413,
    AdminOnly: 403,
    PolicyChanged: 412,
    PolicyNotKept: 409,
    NotFound: 404,
    ModelNotFound: 404,
    VariantNotFound: 404,
    ModelNotReady: 503,
    Draining: 503,
    Overloaded: 429,
    DeadlineExceeded: 504,
    NotSupported: 501,
    BackendFailed: 500,
    RemoteBackendFailed: 502,
    RemoteUnavailable: 503,
}

MAX_MESSAGE_LENGTH: Final = 2000


class HttpRefused(TiergateError):
    """A request is refused for a reason that only HTTP has; ``headers`` go into the reply."""

    def __init__(self, status: int, message: str, headers: Headers | None = None) -> None:
        """Keep the status and the headers."""
        super().__init__(message)
        self.status = status
        self.headers = headers or []


def error_reply(error: Exception, request_id: str) -> Reply:
    """Return the reply for any exception; one that is not ours tells the caller nothing but the request's id."""
    if not isinstance(error, TiergateError):
        return json_reply({"error": f"internal error; request id {request_id}"}, 500)
    if isinstance(error, HttpRefused):
        return json_reply({"error": str(error)[:MAX_MESSAGE_LENGTH]}, error.status, error.headers)
    headers: Headers = []
    if isinstance(error, Overloaded):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if isinstance(error, PayloadTooLarge):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    return json_reply({"error": str(error)[:MAX_MESSAGE_LENGTH]}, HTTP_STATUS[type(error)], headers)


def method_not_allowed(method: str, allowed: Iterable[str]) -> HttpRefused:
    """Return the error of a method that the path does not have; the reply names those that it has."""
    methods = ", ".join(sorted(allowed))
    message = f"method {method[:32]} is not allowed here; allowed are {methods}"
    return HttpRefused(405, message, [(b"allow", methods.encode())])
