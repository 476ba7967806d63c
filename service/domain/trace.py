"""What the gateway's parts know of a traced request; what becomes of it is telemetry's affair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from service.domain.inference import Answer, InferenceRequest


class Trace(Protocol):
    """One sampled request on its way; each method marks the moment at which it is called."""

    @property
    def trace_id(self) -> str:
        """The trace's id: 32 hexadecimal digits."""
        ...

    @property
    def response_header(self) -> str:
        """What the answer carries as ``traceresponse``: which trace and span it belongs to, as in ``traceparent``."""
        ...

    def decoded(self, request: InferenceRequest) -> None:
        """The request is read; from now on it knows its trace."""
        ...

    def answered(self, answer: Answer) -> None:
        """The data plane has answered; what follows is the encoding."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """The request is over."""
        ...


class Tracing(Protocol):
    """Decides which requests are traced."""

    def begin(self, protocol: str, traceparent: str | None, tracestate: str | None) -> Trace | None:
        """Begin a request that came with these headers; ``None`` where it is not sampled."""
        ...
