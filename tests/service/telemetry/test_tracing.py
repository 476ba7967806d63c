"""Which requests are traced, and the spans that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import SpanKind, format_trace_id
from opentelemetry.trace.status import StatusCode

from service.domain.errors import DeadlineExceeded, InvalidRequest
from service.domain.inference import Answer, Reason
from service.domain.observer import RunReport
from service.telemetry.spans import OtlpSpans
from service.telemetry.tracing import RequestTrace, RequestTracing, read_caller
from tests.builders import make_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.trace import ReadableSpan

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
FIRST = RunReport("sums", "distilled", 2, 2, 0.001, 0.010, 0.0, 0.009, decision_s=0.002, started_s=5.0, queued=3)
SECOND = RunReport("sums", "full", 1, 1, 0.001, 0.030, 0.0, 0.029, decision_s=0.001, started_s=5.05)


class Clock:
    """A clock that says the next of the moments it was given."""

    def __init__(self, *moments: float) -> None:
        self._moments = list(moments)

    def __call__(self) -> float:
        return self._moments.pop(0)


class Sink:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.taken: list[RequestTrace] = []

    def take(self, noted: RequestTrace, ended_s: float, error: BaseException | None) -> None:
        del ended_s, error
        self.taken.append(noted)

    def close(self, timeout_s: float) -> None:
        del timeout_s


def make_answer(*runs: RunReport, queue_s: float = 0.1) -> Answer:
    found = Answer("full", "full", Reason.WITHIN_BUDGET, 0.01, queue_s, 0.010, 0.02, 0.1, True, 0.92)
    found.runs = runs
    return found


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Callable[..., dict[str, list[ReadableSpan]]]:
    """Trace one request whose moments are given, and return its spans by name."""

    def trace(
        *moments: float, answer: Answer | None = None, error: Exception | None = None, parent: str | None = None
    ) -> dict[str, list[ReadableSpan]]:
        tracing = RequestTracing(OtlpSpans(SimpleSpanProcessor(exporter)), 1.0, Clock(*moments))
        noted = tracing.begin("http", parent, "vendor=1" if parent else None)
        assert noted is not None
        if len(moments) > 2:
            noted.decoded(make_request())
        if answer is not None:
            noted.answered(answer)
        noted.end(error)
        found: dict[str, list[ReadableSpan]] = {}
        for span in exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found

    return trace


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def attributes(span: ReadableSpan) -> Mapping[str, object]:
    assert span.attributes is not None
    return span.attributes


def test_a_callers_decision_holds_whatever_the_ratio() -> None:
    always, never = RequestTracing(Sink(), 1.0), RequestTracing(Sink(), 0.0)
    assert always.begin("http", UNSAMPLED, None) is None
    noted = never.begin("grpc", SAMPLED, None)
    assert noted is not None
    assert noted.trace_id == TRACE
    assert noted.response_header.startswith(f"00-{TRACE}-")
    assert SPAN not in noted.response_header


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
    ],
)
def test_a_malformed_header_is_no_callers_decision(header: str) -> None:
    assert read_caller(header) is None
    assert RequestTracing(Sink(), 0.0).begin("http", header, None) is None
    noted = RequestTracing(Sink(), 1.0).begin("http", header, None)
    assert noted is not None
    assert noted.trace_id != TRACE


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known() -> None:
    caller = read_caller(f"01-{TRACE}-{SPAN}-01-more", "x" * 600)
    assert caller is not None
    assert (caller.is_sampled, caller.state) == (True, "")


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_the_share_that_is_traced_is_what_opentelemetrys_sampler_takes(ratio: float) -> None:
    sink = Sink()
    tracing, sampler = RequestTracing(sink, ratio), TraceIdRatioBased(ratio)
    begun = [noted for _ in range(5000) if (noted := tracing.begin("http", None, None)) is not None]
    decisions = {sampler.should_sample(None, noted.ids[0], "request").decision for noted in begun}
    assert decisions <= {Decision.RECORD_AND_SAMPLE}
    assert len(begun) == pytest.approx(5000 * ratio, abs=150)  # 7 standard deviations at 0.1
    assert len({noted.trace_id for noted in begun}) == len(begun)


def test_every_part_of_a_request_has_its_span(spans: Callable[..., dict[str, list[ReadableSpan]]]) -> None:
    found = spans(4.90, 4.91, 5.02, 5.03, answer=make_answer(FIRST, queue_s=0.1))
    (request,) = found.pop("POST /v2/models/{model}/infer")
    parts = {name: round(seconds(item[0]), 9) for name, item in found.items()}
    assert parts == pytest.approx(
        {"decode": 0.01, "queue": 0.088, "route": 0.002, "batch": 0.001, "compute": 0.010, "encode": 0.01}
    )
    assert seconds(request) == pytest.approx(0.13)
    assert request.kind is SpanKind.SERVER
    assert request.parent is None
    assert attributes(request)["tiergate.variant"] == "full"
    assert attributes(found["queue"][0])["tiergate.queued"] == 3
    assert attributes(found["batch"][0])["tiergate.requests"] == 2
    for items in found.values():
        assert [item.parent for item in items] == [request.context]


def test_the_wait_before_reading_has_a_span_where_it_is_known(
    spans: Callable[..., dict[str, list[ReadableSpan]]],
) -> None:
    found = spans(4.90, 4.91, 5.02, 5.03, answer=make_answer(FIRST, queue_s=0.3))
    assert seconds(found["read"][0]) == pytest.approx(0.2)
    assert seconds(found["POST /v2/models/{model}/infer"][0]) == pytest.approx(0.33)


def test_both_runs_of_a_cascade_have_their_spans(spans: Callable[..., dict[str, list[ReadableSpan]]]) -> None:
    found = spans(4.90, 4.91, 5.09, 5.10, answer=make_answer(FIRST, SECOND))
    assert [attributes(item)["tiergate.variant"] for item in found["compute"]] == ["distilled", "full"]
    assert [seconds(item) for item in found["queue"]] == pytest.approx([0.088, 0.038])


def test_a_callers_span_is_the_parent_and_its_state_goes_on(
    spans: Callable[..., dict[str, list[ReadableSpan]]],
) -> None:
    (request,) = spans(1.0, 1.1, 1.2, 1.3, answer=make_answer(FIRST), parent=SAMPLED)["POST /v2/models/{model}/infer"]
    assert request.context is not None
    assert request.parent is not None
    assert format_trace_id(request.context.trace_id) == TRACE
    assert f"{request.parent.span_id:016x}" == SPAN
    assert request.parent.is_remote
    assert request.context.trace_state.get("vendor") == "1"


def test_a_refusal_is_an_error_where_it_is_the_servers(spans: Callable[..., dict[str, list[ReadableSpan]]]) -> None:
    found = spans(1.0, 1.1, 1.2, error=DeadlineExceeded("too late"))
    (request,) = found["POST /v2/models/{model}/infer"]
    assert (request.status.status_code, request.status.description) == (StatusCode.ERROR, "too late")
    assert attributes(request)["error.type"] == "DeadlineExceeded"
    assert [round(seconds(item), 6) for name in ("decode", "queue") for item in found[name]] == [0.1, 0.1]


def test_a_malformed_request_is_no_error_of_the_server(
    spans: Callable[..., dict[str, list[ReadableSpan]]],
) -> None:
    found = spans(1.0, 1.1, error=InvalidRequest("no inputs"))
    assert found["POST /v2/models/{model}/infer"][0].status.status_code is StatusCode.UNSET
    assert found.keys() == {"POST /v2/models/{model}/infer", "decode"}
