"""What can go wrong while a request is served, as a tree of named errors.

The errors say what happened and carry no status code: each wire form maps them in one table of its own
(``api.http_errors``, ``api.grpc_errors``).

    TiergateError
    |-- InvalidRequest            the caller must change the request
    |   `-- UnsupportedMedia      its content type or encoding is not one we read
    |-- PayloadTooLarge           the body is over the configured limit
    |-- AdminOnly                 offered by the admin listener only
    |-- PolicyChanged             the policy in force is not the one that the caller would replace
    |-- PolicyNotKept             the policy file of this server cannot be written
    |-- NotFound
    |   |-- ModelNotFound
    |   `-- VariantNotFound
    |-- ModelNotReady             known, but no variant of it can answer now
    |   `-- Draining              the server is leaving
    |-- Overloaded                refused for load; carries when to try again
    |-- DeadlineExceeded          the hard deadline passed, or cannot be met by any variant
    |-- NotSupported              a part of the protocol that this server leaves out
    `-- BackendFailed             the runtime failed on this request
        `-- RemoteBackendFailed   a server behind this one failed
            `-- RemoteUnavailable it could not be reached, or would not take the request
"""

from __future__ import annotations


class TiergateError(Exception):
    """Base of every error that the service raises on purpose; the message is safe to show to a caller."""


class InvalidRequest(TiergateError):
    """The request is malformed or asks for something that the model does not take."""


class UnsupportedMedia(InvalidRequest):
    """The body's content type or content encoding is not one that this server reads."""


class PayloadTooLarge(TiergateError):
    """The body is larger than the configured limit, counted after decompression."""


class AdminOnly(TiergateError):
    """The call is offered by the admin listener only."""


class PolicyChanged(TiergateError):
    """The policy in force is not the one that the caller would replace."""


class PolicyNotKept(TiergateError):
    """A policy is not put in force, because this server's policy file cannot be written and would soon undo it."""


class NotFound(TiergateError):
    """Something was named that is not here."""


class ModelNotFound(NotFound):
    """No model of that name and version is known."""


class VariantNotFound(NotFound):
    """The model has no variant or tier of that name."""


class ModelNotReady(TiergateError):
    """The model is known, but nothing can answer for it now."""


class Draining(ModelNotReady):
    """The server finishes what it has and takes no new requests."""


class Overloaded(TiergateError):
    """The request was refused because of load."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        """Keep when to try again, in seconds from now."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(TiergateError):
    """The hard deadline has passed, or no variant can answer before it."""


class NotSupported(TiergateError):
    """A part of the protocol that this server leaves out on purpose."""


class BackendFailed(TiergateError):
    """The runtime failed while it computed this request."""


class RemoteBackendFailed(BackendFailed):
    """A server behind this one failed."""


class RemoteUnavailable(RemoteBackendFailed):
    """A server behind this one could not be reached, or would not take the request: nothing was wrong with that."""
