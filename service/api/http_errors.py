"""Errors as HTTP: one table from error class to status, and the body ``{"error": "..."}`` that clients expect.

401 would promise a login; the token of an administrative call belongs to operators, so a call without it is 403.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from service.api.http_message import Reply, json_reply
from service.domain.errors import (
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
    RemoteBackendFailed,
    TiergateError,
    Unauthorized,
    UnsupportedMedia,
    VariantNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HTTP_STATUS: Final[Mapping[type[TiergateError], int]] = {
    TiergateError: 500,
    InvalidRequest: 400,
    UnsupportedMedia: 415,
    PayloadTooLarge: 413,
    Unauthorized: 403,
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
}

MAX_MESSAGE_LENGTH: Final = 2000


def error_reply(error: Exception, request_id: str) -> Reply:
    """Return the reply for any exception; one that is not ours tells the caller nothing but the request's id."""
    if not isinstance(error, TiergateError):
        return json_reply({"error": f"internal error; request id {request_id}"}, 500)
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, Overloaded):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if isinstance(error, PayloadTooLarge):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    return json_reply({"error": str(error)[:MAX_MESSAGE_LENGTH]}, HTTP_STATUS[type(error)], headers)


def method_not_allowed(method: str, allowed: Iterable[str]) -> Reply:
    """Return 405 with the methods that the path has."""
    methods = ", ".join(sorted(allowed))
    message = f"method {method[:32]} is not allowed here; allowed are {methods}"
    return json_reply({"error": message}, 405, [(b"allow", methods.encode())])
