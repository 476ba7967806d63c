"""What a running gateway tells of itself: traces to a collector, exemplars that name them, decisions and memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.builders import write_repository
from tests.integration.clients import Question, ask_plain
from tests.integration.gateway_process import TIGHT_MS, running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PATIENCE_S = 300.0
PARENT = f"00-{TRACE}-{SPAN}-01"
HTTP_CALL, GRPC_CALL = "POST /v2/models/{model}/infer", "inference.GRPCInferenceService/ModelInfer"
STAGES = {"decode", "queue", "route", "batch", "compute", "encode"}
BODY = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 1, 1, 1]}]}'


class Collector:
    """An OTLP/HTTP receiver on loopback that remembers every span."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self._more = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, message: Any) -> None:  # noqa: ANN401 - protobuf ships no types
        with self._more:
            for resource in message.resource_spans:
                names = {item.key: item.value.string_value for item in resource.resource.attributes}
                assert names["service.name"] == "tiergate"
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self._more.notify_all()

    def wait_for(self, *names: str) -> dict[str, Any]:
        """Return the spans by their names, when there is one of each of these; they may come in parts."""
        with self._more:
            assert self._more.wait_for(lambda: {*names} <= {span.name for span in self.spans}, PATIENCE_S)
            return {span.name: span for span in self.spans}


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def traced(tmp_path: Path, collector: Collector) -> Iterator[GatewayProcess]:
    """A gateway that traces only what its callers want traced."""
    repository = write_repository(tmp_path / "repository")
    flags = ("--trace-endpoint", collector.url, "--trace-ratio", "0")
    with running_gateway(repository, *flags, OTEL_BSP_SCHEDULE_DELAY="100") as running:
        yield running


def ask(gateway: GatewayProcess, **headers: str) -> dict[str, str]:
    status, found, _ = gateway.call("POST", "/v2/models/sums/infer", BODY, headers)
    assert status == 200
    return found


def test_a_sampled_request_becomes_spans_under_its_callers(traced: GatewayProcess, collector: Collector) -> None:
    assert "traceresponse" not in ask(traced)
    said = ask(traced, traceparent=PARENT)["traceresponse"]
    spans = collector.wait_for(HTTP_CALL, *STAGES)
    request = spans.pop(HTTP_CALL)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, SPAN)
    assert said == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert spans.keys() - {"read"} == STAGES
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    _, _, text = traced.call(
        "GET", "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}, where=traced.admin
    )
    assert f'# {{trace_id="{TRACE}"}}'.encode() in text


def test_grpc_calls_are_traced_by_their_metadata(traced: GatewayProcess, collector: Collector) -> None:
    request = service_pb2.ModelInferRequest(model_name="sums")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1.0] * 4)
    with grpc.insecure_channel(traced.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        _, call = stub.ModelInfer.with_call(request, metadata=[("traceparent", PARENT)], timeout=PATIENCE_S)
        trailers = dict(call.trailing_metadata())
    found = collector.wait_for(GRPC_CALL, *STAGES)[GRPC_CALL]
    assert (found.trace_id.hex(), found.parent_span_id.hex()) == (TRACE, SPAN)
    assert trailers["traceresponse"] == f"00-{TRACE}-{found.span_id.hex()}-01"


def test_a_refused_request_is_traced_with_its_error(traced: GatewayProcess, collector: Collector) -> None:
    status, found, _ = traced.call("POST", "/v2/models/sums/infer", b'{"inputs": []}', {"traceparent": PARENT})
    assert status == 400
    assert TRACE in found["traceresponse"]
    attributes = {item.key: item.value.string_value for item in collector.wait_for(HTTP_CALL)[HTTP_CALL].attributes}
    assert (attributes["error.type"], attributes["tiergate.outcome"]) == ("InvalidRequest", "invalid")


def test_what_is_left_is_sent_when_the_gateway_ends(tmp_path: Path, collector: Collector) -> None:
    repository = write_repository(tmp_path / "repository")
    flags = ("--trace-endpoint", collector.url, "--trace-ratio", "1")
    with running_gateway(repository, *flags, OTEL_BSP_SCHEDULE_DELAY="600000") as gateway:
        assert "traceresponse" in ask(gateway)
        assert gateway.stop() == 0
    assert collector.wait_for(HTTP_CALL, *STAGES)


def test_a_collector_that_is_gone_costs_no_answer_and_no_clean_end(tmp_path: Path) -> None:
    with collecting() as gone:
        url = gone.url
    repository = write_repository(tmp_path / "repository")
    with running_gateway(repository, "--trace-endpoint", url, "--trace-ratio", "1") as gateway:
        ask(gateway)
        assert gateway.stop() == 0


def test_tracing_without_opentelemetry_is_refused_with_what_to_install(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "repository")
    command = (
        "import sys; sys.modules['opentelemetry'] = None\nfrom service.cli import main\n"
        f"sys.exit(main(['serve', {str(repository)!r}, '--trace-endpoint', 'http://127.0.0.1:4318']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 2
    assert "pip install 'tiergate[otel]'" in done.stderr


def test_decisions_are_told_to_administrators_only(gateway: GatewayProcess) -> None:
    reply = ask_plain(gateway, Question(parameters={"latency_budget_ms": TIGHT_MS}))
    path = "/v2/models/sums/decisions?last=1"
    status, _, told = gateway.call("GET", path, where=gateway.admin)
    assert status == 200
    (decision,) = told["decisions"]
    assert (decision["variant"], decision["budget_ms"]) == (reply.answer["variant"], TIGHT_MS)
    verdicts = {item["name"]: item["verdict"] for item in decision["candidates"]}
    assert verdicts["full"] == "too_slow"
    assert verdicts[decision["variant"]] == "chosen"
    assert gateway.call("GET", path)[0] == 403
