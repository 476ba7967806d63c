"""Spans of requests that are over, for an OpenTelemetry collector by OTLP over HTTP.

One server span for the request, and under it the parts that took its time. The spans are made as finished ones: a live
span of the SDK costs several times as much, for locks and events that nothing here needs. Sending is the SDK's: in
batches, from a thread of its own, with a bounded queue that drops when the collector does not keep up. What else can be
set of the exporter (headers, TLS, timeout, compression) is read from the environment, as ``OTEL_EXPORTER_OTLP_*``, and
the resource's attributes as ``OTEL_RESOURCE_ATTRIBUTES``.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

import service
from service.telemetry.request_metrics import outcome_of
from service.telemetry.sparing import Sparing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import SpanProcessor

    from service.domain.inference import Answer
    from service.domain.observer import RunReport
    from service.telemetry.tracing import RequestTrace

    Attributes = Mapping[str, str | bool | int | float]
    Part = tuple[str, float, float, Attributes]

_TRACES_PATH: Final = "/v1/traces"
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_CALLERS_FAULT: Final = frozenset({"invalid", "not_found", "cancelled"})
"""Outcomes that are no error of a server, by OpenTelemetry's conventions."""
_NAMES: Final = {
    "http": "POST /v2/models/{model}/infer",
    "grpc": "inference.GRPCInferenceService/ModelInfer",
}
_NOTHING: Final[Attributes] = {}


class OtlpSpans:
    """Makes spans and gives them to a span processor; it is a ``SpanSink``."""

    def __init__(self, processor: SpanProcessor) -> None:
        """Keep the processor; it is shut down by ``close``."""
        self._processor = processor
        self._bits = random.Random().getrandbits  # noqa: S311 - ids must differ, not be secret
        self._scope = InstrumentationScope("tiergate", service.__version__)
        self._resource = Resource.create({"service.name": "tiergate", "service.version": service.__version__})

    @classmethod
    def to_collector(cls, endpoint: str) -> OtlpSpans:
        """Return spans that go to a collector in batches."""
        url = endpoint.rstrip("/")
        url = url if url.endswith(_TRACES_PATH) else url + _TRACES_PATH
        logger = logging.getLogger(OTLPSpanExporter.__module__)
        if not any(isinstance(item, Sparing) for item in logger.filters):
            logger.addFilter(Sparing())
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))

    def take(self, noted: RequestTrace, ended_s: float, error: BaseException | None) -> None:
        """Make the spans of a request that is over."""
        trace_id, span_id = noted.ids
        state = TraceState.from_header([noted.caller.state]) if noted.caller and noted.caller.state else None
        context = SpanContext(trace_id, span_id, False, _SAMPLED, state)
        offset_ns = noted.began_ns - int(noted.began_s * 1e9)
        for name, start_s, end_s, attributes in _parts(noted, ended_s):
            child = SpanContext(trace_id, self._bits(64) or 1, False, _SAMPLED, state)
            moments = (int(start_s * 1e9) + offset_ns, int(max(start_s, end_s) * 1e9) + offset_ns)
            self._emit(name, child, context, moments, attributes)
        moments = (int(_arrived_s(noted) * 1e9) + offset_ns, int(ended_s * 1e9) + offset_ns)
        self._emit_request(noted, context, moments, error)

    def close(self, timeout_s: float) -> None:
        """Send what is left; a collector that does not answer is left behind after a time."""
        closing = threading.Thread(target=self._processor.shutdown, name="closing-traces", daemon=True)
        closing.start()
        closing.join(timeout_s)

    def _emit(
        self, name: str, context: SpanContext, parent: SpanContext, moments: tuple[int, int], attributes: Attributes
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                attributes,
                status=_UNSET,
                start_time=moments[0],
                end_time=moments[1],
                instrumentation_scope=self._scope,
            )
        )

    def _emit_request(
        self, noted: RequestTrace, context: SpanContext, moments: tuple[int, int], error: BaseException | None
    ) -> None:
        caller = noted.caller
        parent = SpanContext(caller.trace_id, caller.span_id, True, _SAMPLED, context.trace_state) if caller else None
        self._processor.on_end(
            ReadableSpan(
                _NAMES[noted.protocol],
                context,
                parent,
                self._resource,
                _attributes(noted, error),
                kind=SpanKind.SERVER,
                status=_status(error),
                start_time=moments[0],
                end_time=moments[1],
                instrumentation_scope=self._scope,
            )
        )


def _parts(noted: RequestTrace, ended_s: float) -> Iterator[Part]:
    """Return the parts of a request: their names, moments and attributes."""
    arrived_s = _arrived_s(noted)
    if arrived_s < noted.began_s:
        yield "read", arrived_s, noted.began_s, _NOTHING
    if not noted.decoded_s:
        yield "decode", noted.began_s, ended_s, _NOTHING
        return
    yield "decode", noted.began_s, noted.decoded_s, _NOTHING
    if noted.answer is None:
        yield "queue", noted.decoded_s, ended_s, _NOTHING  # it waited, or was computed, in vain
        return
    waits_s = noted.decoded_s
    for run in noted.answer.runs:
        yield from _run_parts(run, waits_s)
        waits_s = run.started_s + run.input_s + run.compute_s
    yield "encode", noted.answered_s, ended_s, _NOTHING


def _arrived_s(noted: RequestTrace) -> float:
    """Return when the request began, with the time for which its bytes waited to be read where that is known."""
    if noted.answer is None or not noted.answer.runs:
        return noted.began_s
    return min(noted.began_s, noted.answer.runs[0].started_s - noted.answer.queue_s)


def _run_parts(run: RunReport, waits_s: float) -> Iterator[Part]:
    decided_s, joined_s = run.started_s - run.decision_s, run.started_s + run.input_s
    yield "queue", min(waits_s, decided_s), decided_s, {"tiergate.queued": run.queued}
    yield "route", decided_s, run.started_s, {"tiergate.variant": run.variant}
    yield "batch", run.started_s, joined_s, {"tiergate.rows": run.rows, "tiergate.requests": run.requests}
    computed: Attributes = {"tiergate.variant": run.variant, "tiergate.predicted_ms": run.predicted_s * 1e3}
    yield "compute", joined_s, joined_s + run.compute_s, computed


def _attributes(noted: RequestTrace, error: BaseException | None) -> Attributes:
    found: dict[str, str | bool | int | float] = {
        "tiergate.model": noted.model,
        "tiergate.request_id": noted.request_id,
    }
    if noted.protocol == "grpc":
        found |= {"rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer"}
    else:
        found |= {"http.request.method": "POST", "http.route": "/v2/models/{model}/infer"}
    if error is not None:
        found |= {"error.type": type(error).__name__, "tiergate.outcome": outcome_of(error)}
    if noted.answer is not None:
        found |= _story(noted.answer)
    return found


def _story(answer: Answer) -> Attributes:
    return {
        "tiergate.variant": answer.variant,
        "tiergate.tier": answer.tier,
        "tiergate.reason": answer.reason.value,
        "tiergate.budget_ms": answer.budget_s * 1e3,
        "tiergate.budget_met": answer.budget_met,
        "tiergate.predicted_ms": answer.predicted_s * 1e3,
        "tiergate.expected_accuracy": answer.expected_accuracy,
    }


def _status(error: BaseException | None) -> Status:
    if error is None or outcome_of(error) in _CALLERS_FAULT:
        return _UNSET
    return Status(StatusCode.ERROR, str(error))
