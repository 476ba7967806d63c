"""An answer is findable from the moment that its client has it: in decisions, in metrics, and for its label."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.drifting import infer_body, write_winds
from tests.integration.gateway_process import running_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

ROUNDS = 40
PATIENCE_S = 300.0
ANSWERED = re.compile(r'^tiergate_requests_total\{.*outcome="ok".*\} (\S+)$', re.MULTILINE)


@pytest.fixture(scope="module", params=["python", "pyvoy"])
def keeping(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Serve a model whose predictions are kept."""
    if request.param == "pyvoy":
        pytest.importorskip("pyvoy", reason="the optional frontend pyvoy is not installed")
    root: Path = tmp_path_factory.mktemp(f"findable-{request.param}")
    write_winds(root / "repository")
    flags = ("--frontend", request.param, "--predictions", str(root / "kept.db"))
    with running_gateway(root / "repository", *flags) as running:
        yield running


@contextmanager
def connected(address: str) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(address, timeout=PATIENCE_S)) as connection:
        yield connection


@contextmanager
def ask_http(gateway: GatewayProcess) -> Iterator[Callable[[str], None]]:
    def ask(name: str) -> None:
        connection.request("POST", "/v2/models/winds/infer", infer_body(1, name))
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        reply.read()

    with connected(gateway.http) as connection:
        yield ask


@contextmanager
def ask_grpc(gateway: GatewayProcess) -> Iterator[Callable[[str], None]]:
    def ask(name: str) -> None:
        request = service_pb2.ModelInferRequest(model_name="winds", id=name)
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([0.0, 1.0, 0.0, 0.0])
        request.parameters["latency_budget_ms"].double_param = 1000.0
        stub.ModelInfer(request, timeout=PATIENCE_S)

    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield ask


@pytest.mark.parametrize("protocol", [ask_http, ask_grpc])
def test_an_answer_is_findable_at_once(
    keeping: GatewayProcess, protocol: Callable[[GatewayProcess], AbstractContextManager[Callable[[str], None]]]
) -> None:
    def tell(method: str, path: str, body: bytes | None = None) -> bytes:
        admin.request(method, path, body, {"content-type": "application/json"})
        reply = admin.getresponse()
        content = reply.read()
        assert reply.status == 200, content
        return content

    def counted() -> float:
        return sum(map(float, ANSWERED.findall(tell("GET", "/metrics").decode())))

    with protocol(keeping) as ask, connected(keeping.admin) as admin:
        before = counted()
        for number in range(ROUNDS):
            name = f"{protocol.__name__}-{number}"
            ask(name)
            if number % 2:
                label = json.dumps({"labels": [{"id": name, "label": 1}]}).encode()
                told = json.loads(tell("POST", "/v2/models/winds/feedback", label))
                assert (told["joined"], told["unknown_ids"]) == (1, [])
                continue
            (decision,) = json.loads(tell("GET", "/v2/models/winds/decisions?last=1"))["decisions"]
            assert decision["request_id"] == name
            assert counted() == before + number + 1
