"""Errors as gRPC: one table from error class to status code, and the metadata that goes with some of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grpc import StatusCode

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
    from collections.abc import Mapping

GRPC_STATUS: Final[Mapping[type[TiergateError], StatusCode]] = {
    TiergateError: StatusCode.INTERNAL,
    InvalidRequest: StatusCode.INVALID_ARGUMENT,
    UnsupportedMedia: StatusCode.INVALID_ARGUMENT,
    PayloadTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    AdminOnly: StatusCode.PERMISSION_DENIED,
    PolicyChanged: StatusCode.ABORTED,
    PolicyNotKept: StatusCode.FAILED_PRECONDITION,
    NotFound: StatusCode.NOT_FOUND,
    ModelNotFound: StatusCode.NOT_FOUND,
    VariantNotFound: StatusCode.NOT_FOUND,
    ModelNotReady: StatusCode.UNAVAILABLE,
    Draining: StatusCode.UNAVAILABLE,
    Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    NotSupported: StatusCode.UNIMPLEMENTED,
    BackendFailed: StatusCode.INTERNAL,
    RemoteBackendFailed: StatusCode.UNAVAILABLE,
    RemoteUnavailable: StatusCode.UNAVAILABLE,
}

MAX_MESSAGE_LENGTH: Final = 1000
"""Clients take 8 KiB of metadata by default, and percent-encoding can make one character nine bytes."""


@dataclass(frozen=True, slots=True)
class GrpcStatus:
    """How a call ends that did not succeed."""

    code: StatusCode
    message: str
    metadata: tuple[tuple[str, str], ...] = ()


def grpc_status(error: Exception, request_id: str) -> GrpcStatus:
    """Return the status for any exception; one that is not ours tells the caller nothing but the request's id."""
    if not isinstance(error, TiergateError):
        return GrpcStatus(StatusCode.INTERNAL, f"internal error; request id {request_id}")
    metadata: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Overloaded):
        metadata = (("grpc-retry-pushback-ms", str(max(1, math.ceil(error.retry_after_s * 1e3)))),)
    return GrpcStatus(GRPC_STATUS[type(error)], str(error)[:MAX_MESSAGE_LENGTH], metadata)
