"""Which requests are traced, and what is noted of them on their way.

A request with a W3C ``traceparent`` is traced where its caller says that it is sampled; one without, for a share of the
requests chosen by the low 64 bits of its new trace id, as OpenTelemetry's own samplers choose (parent-based ratio). For
all others nothing is kept. Of a traced request only a few moments are noted. The spans are made from them, and from
the times that every answer carries, when the request is over: decode, queue, route, batch, compute, encode.

This module needs nothing of OpenTelemetry; ``spans`` does, and is imported where tracing is asked for.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.inference import Answer, InferenceRequest

_PARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1
_IDS: Final = 2**64
_MOST_STATE: Final = 512


class MissingTracing(RuntimeError):
    """Traces are asked for, but OpenTelemetry is not installed."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The span that a request comes from, and its ``tracestate``."""

    trace_id: int
    span_id: int
    is_sampled: bool
    state: str = ""


class SpanSink(Protocol):
    """Makes spans of what was noted, and sends them off."""

    def take(self, noted: RequestTrace, ended_s: float, error: BaseException | None) -> None:
        """Take a request that is over; quick, and on the event loop's thread."""
        ...

    def close(self, timeout_s: float) -> None:
        """Send what is left; give up after a time."""
        ...


def read_caller(traceparent: str, tracestate: str | None = None) -> Caller | None:
    """Return the caller's span, ``None`` where the header is malformed, which starts a trace of our own."""
    found = _PARENT.fullmatch(traceparent.strip())
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    state = tracestate if tracestate is not None and len(tracestate) <= _MOST_STATE else ""
    return Caller(trace_id, span_id, bool(int(found[4], 16) & _SAMPLED), state)


class RequestTracing:
    """Begins the traces of sampled requests; it is the ``Tracing`` of the domain.

    ``ratio`` is the share of requests without a caller's decision that are traced, 0..1; ``clock`` is the engine's.
    """

    def __init__(self, sink: SpanSink, ratio: float, clock: Callable[[], float] = time.perf_counter) -> None:
        """Keep where spans go."""
        self._sink = sink
        self._clock = clock
        self._bound = round(ratio * _IDS)
        self._bits = random.Random().getrandbits  # noqa: S311 - ids must differ, not be secret

    def begin(self, protocol: str, traceparent: str | None, tracestate: str | None) -> RequestTrace | None:
        """Begin a request that came with these headers; ``None`` where it is not sampled."""
        if traceparent is not None:
            caller = read_caller(traceparent, tracestate)
            if caller is not None:
                return self._note(protocol, caller.trace_id, caller) if caller.is_sampled else None
        low = self._bits(64)
        if low >= self._bound:
            return None
        return self._note(protocol, ((self._bits(64) << 64) | low) or 1, None)

    def close(self, timeout_s: float) -> None:
        """Send what is left; give up after a time."""
        self._sink.close(timeout_s)

    def _note(self, protocol: str, trace_id: int, caller: Caller | None) -> RequestTrace:
        return RequestTrace(self._sink, self._clock, protocol, (trace_id, self._bits(64) or 1), caller)


class RequestTrace:
    """One sampled request; moments are on the engine's clock, ``began_ns`` is the first of them in Unix time."""

    __slots__ = (
        "_clock",
        "_sink",
        "answer",
        "answered_s",
        "began_ns",
        "began_s",
        "caller",
        "decoded_s",
        "ids",
        "model",
        "protocol",
        "request_id",
    )

    def __init__(
        self,
        sink: SpanSink,
        clock: Callable[[], float],
        protocol: str,
        ids: tuple[int, int],
        caller: Caller | None,
    ) -> None:
        """Begin now; ``ids`` are those of the trace and of the request's own span."""
        self._sink = sink
        self._clock = clock
        self.protocol = protocol
        self.ids = ids
        self.caller = caller
        self.began_ns = time.time_ns()
        self.began_s = clock()
        self.decoded_s = self.answered_s = 0.0
        self.model = self.request_id = ""
        self.answer: Answer | None = None

    @property
    def trace_id(self) -> str:
        """The trace's id: 32 hexadecimal digits."""
        return f"{self.ids[0]:032x}"

    @property
    def response_header(self) -> str:
        """What the answer carries as ``traceresponse``."""
        return f"00-{self.ids[0]:032x}-{self.ids[1]:016x}-01"

    def decoded(self, request: InferenceRequest) -> None:
        """Note that the request is read; its tensors are not kept."""
        self.decoded_s = self._clock()
        self.model, self.request_id = request.model, request.id
        request.trace = self

    def answered(self, answer: Answer) -> None:
        """Note the answer."""
        self.answered_s = self._clock()
        self.answer = answer

    def end(self, error: BaseException | None = None) -> None:
        """Hand over what was noted."""
        self._sink.take(self, self._clock(), error)


def open_tracing(endpoint: str, ratio: float) -> RequestTracing:
    """Return tracing that sends its spans to an OpenTelemetry collector.

    Args:
        endpoint: The collector's base URL, such as ``http://127.0.0.1:4318``, or the full one that ends in /v1/traces.
        ratio: The share of requests that are traced where their caller has not decided, 0..1.

    Raises:
        MissingTracing: OpenTelemetry is not installed.
    """
    try:
        from service.telemetry.spans import OtlpSpans  # noqa: PLC0415 - only those who trace need OpenTelemetry
    except ImportError as error:
        raise MissingTracing(
            f"tracing needs OpenTelemetry, which is not installed ({error}): pip install 'tiergate[otel]'"
        ) from None
    return RequestTracing(OtlpSpans.to_collector(endpoint), ratio)
