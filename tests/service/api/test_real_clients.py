"""tritonclient, in its four forms, against real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from service.api.grpc_asgi import GrpcAsgiApp
from service.api.http_app import HttpApp
from service.api.plane import ignore_refusal
from service.domain.errors import Overloaded
from service.domain.inference import Criticality
from service.domain.tensors import Tensor
from service.frontends.grpc import CallLimits, GrpcServer
from service.frontends.sockets import bind, port_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from service.api.plane import OnRefused, Refusal
    from service.domain.inference import InferenceRequest
    from tests.service.api.conftest import StubPlane

IMAGE = np.arange(4, dtype=np.float32).reshape(1, 4)
WORDS = np.array([[b"one", b"", "zwölf".encode()]], np.object_)


@contextlib.asynccontextmanager
async def grpc_server(plane: StubPlane, on_refused: OnRefused = ignore_refusal) -> AsyncIterator[str]:
    server = GrpcServer(GrpcAsgiApp(plane, on_refused=on_refused), CallLimits(10, 10, 60.0), on_refused)
    with bind("127.0.0.1", 0, "grpc_port") as listener:
        await server.start(listener)
        yield f"127.0.0.1:{port_of(listener)}"
        await server.close(0)


@dataclass
class Servers:
    """Both servers in a thread of their own, so that blocking clients can be used from the test."""

    plane: StubPlane
    http: str = ""
    grpc: str = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[Servers]:
        started, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._run(started, stop),))
        thread.start()
        started.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    async def _run(self, started: threading.Event, stop: asyncio.Event) -> None:
        config = uvicorn.Config(
            HttpApp(self.plane, max_body_bytes=1 << 20), port=0, lifespan="off", log_level="error", loop="asyncio"
        )
        web = Web(config)
        async with grpc_server(self.plane) as self.grpc:
            serving = asyncio.create_task(web.serve())
            await web.listening.wait()
            self.http = f"127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
            started.set()
            await stop.wait()
            web.should_exit = True
            await serving


class Web(uvicorn.Server):
    """uvicorn that says when it listens and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:  # noqa: ANN401
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
def servers(plane: StubPlane) -> Iterator[Servers]:
    with Servers(plane).running() as running:
        yield running


@pytest.fixture
def http(servers: Servers) -> Iterator[Any]:
    client = tritonclient.http.InferenceServerClient(servers.http)
    yield client
    client.close()


@pytest.fixture
def rpc(servers: Servers) -> Iterator[Any]:
    client = tritonclient.grpc.InferenceServerClient(servers.grpc)
    yield client
    client.close()


@pytest.fixture
async def http_aio(servers: Servers) -> AsyncIterator[Any]:
    client = tritonclient.http.aio.InferenceServerClient(servers.http)
    yield client
    await client.close()


@pytest.fixture
async def rpc_aio(servers: Servers) -> AsyncIterator[Any]:
    client = tritonclient.grpc.aio.InferenceServerClient(servers.grpc)
    yield client
    await client.close()


def image(module: Any, **more: Any) -> Any:  # noqa: ANN401
    tensor = module.InferInput("image", [1, 4], "FP32")
    return tensor.set_data_from_numpy(IMAGE, **more)


def infer_message() -> Any:  # noqa: ANN401 - the stubs ship no types
    message = service_pb2.ModelInferRequest(model_name="digits")
    message.inputs.add(name="image", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
    return message


def words(module: Any, **more: Any) -> Any:  # noqa: ANN401
    return module.InferInput("words", [1, 3], "BYTES").set_data_from_numpy(WORDS, **more)


def test_http_client_reads_everything_the_server_says(http: Any) -> None:  # noqa: ANN401
    assert http.is_server_live()
    assert http.is_server_ready()
    assert http.is_model_ready("digits")
    assert not http.is_model_ready("absent")
    assert http.get_server_metadata()["extensions"] == ["binary_tensor_data", "statistics"]
    assert http.get_model_metadata("digits", "1")["inputs"][0]["shape"] == [-1, 4]
    assert http.get_model_config("digits")["max_batch_size"] == 8
    assert http.get_inference_statistics("digits")["model_stats"][0]["inference_count"] == 3
    assert http.get_inference_statistics()["model_stats"][0]["name"] == "digits"
    assert [entry["name"] for entry in http.get_model_repository_index()] == ["digits", "broken"]
    with pytest.raises(InferenceServerException, match="administrative listener only"):
        http.load_model("digits")


def test_grpc_client_reads_everything_the_server_says(rpc: Any) -> None:  # noqa: ANN401
    assert rpc.is_server_live()
    assert rpc.is_server_ready()
    assert rpc.is_model_ready("digits")
    assert rpc.get_server_metadata().extensions == ["binary_tensor_data", "statistics"]
    assert rpc.get_model_metadata("digits").inputs[0].shape == [-1, 4]
    config = rpc.get_model_config("digits").config
    assert (config.input[0].dims, config.max_batch_size, config.backend) == ([4], 8, "onnxruntime")
    assert rpc.get_inference_statistics("digits").model_stats[0].inference_stats.queue.ns == 3000
    assert rpc.get_inference_statistics().model_stats[0].batch_stats[0].batch_size == 2
    assert [entry.name for entry in rpc.get_model_repository_index().models] == ["digits", "broken"]
    with pytest.raises(InferenceServerException, match="administrative listener only"):
        rpc.load_model("digits")
    with pytest.raises(InferenceServerException, match="SystemSharedMemoryStatus is not offered"):
        rpc.get_system_shared_memory_status()
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        rpc.get_trace_settings()


@pytest.mark.parametrize("in_binary", [True, False])
@pytest.mark.parametrize("out_binary", [True, False, None])
def test_http_client_infers_in_every_mix_of_forms(http: Any, in_binary: bool, out_binary: bool | None) -> None:  # noqa: ANN401
    outputs = None
    if out_binary is not None:
        names = ("words", "scores")
        outputs = [tritonclient.http.InferRequestedOutput(name, binary_data=out_binary) for name in names]
    inputs = [image(tritonclient.http, binary_data=in_binary), words(tritonclient.http, binary_data=in_binary)]
    result = http.infer("digits", inputs, outputs=outputs, request_id="r5")
    np.testing.assert_array_equal(result.as_numpy("scores"), IMAGE * 2)
    read = [element.encode() if isinstance(element, str) else element for element in result.as_numpy("words")[0]]
    assert read == WORDS[0].tolist()
    assert result.get_response()["id"] == "r5"
    assert result.get_response()["parameters"]["variant"] == "small"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_http_client_compresses_both_ways(http: Any, plane: StubPlane, coding: str) -> None:  # noqa: ANN401
    plane.outputs = lambda _: (Tensor("scores", "FP32", np.zeros((1, 1000), np.float32)),)
    result = http.infer(
        "digits",
        [image(tritonclient.http)],
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert result.as_numpy("scores").shape == (1, 1000)


def check_knobs(request: InferenceRequest) -> None:
    assert request.knobs.criticality is Criticality.CRITICAL
    assert request.knobs.timeout_s == 0.25
    assert request.knobs.budget_s == 0.0125
    assert request.knobs.variant == "small"
    assert (request.model, request.version) == ("digits", "1")


def test_clients_arguments_become_knobs_on_both_protocols(http: Any, rpc: Any, plane: StubPlane) -> None:  # noqa: ANN401
    for client, module in ((http, tritonclient.http), (rpc, tritonclient.grpc)):
        client.infer(
            "digits--small",
            [image(module)],
            model_version="1",
            priority=1,
            timeout=250_000,
            parameters={"latency_budget_ms": 12.5},
        )
        check_knobs(plane.requests[-1])


def test_grpc_client_infers_and_its_deadline_counts(rpc: Any, plane: StubPlane) -> None:  # noqa: ANN401
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in ("words", "scores")]
    inputs = [image(tritonclient.grpc), words(tritonclient.grpc)]
    result = rpc.infer("digits", inputs, outputs=outputs, request_id="r6", client_timeout=30.0, timeout=250_000)
    np.testing.assert_array_equal(result.as_numpy("scores"), IMAGE * 2)
    assert result.as_numpy("words").tolist() == WORDS.tolist()
    assert result.get_response().id == "r6"
    assert result.get_response().parameters["variant"].string_param == "small"
    timeout_s = plane.requests[-1].knobs.timeout_s
    assert timeout_s is not None
    assert 1.0 < timeout_s <= 31.0


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_grpc_client_compresses(rpc: Any, coding: str) -> None:  # noqa: ANN401
    result = rpc.infer("digits", [image(tritonclient.grpc)], compression_algorithm=coding)
    np.testing.assert_array_equal(result.as_numpy("scores"), IMAGE * 2)


def test_errors_reach_both_clients_with_status_and_text(http: Any, rpc: Any, plane: StubPlane) -> None:  # noqa: ANN401
    plane.error = Overloaded("model 'digits' is busy", 1.5)
    with pytest.raises(InferenceServerException, match=r"\[429\] model 'digits' is busy"):
        http.infer("digits", [image(tritonclient.http)])
    with pytest.raises(InferenceServerException, match=r"RESOURCE_EXHAUSTED.* model 'digits' is busy"):
        rpc.infer("digits", [image(tritonclient.grpc)])
    with pytest.raises(InferenceServerException, match="'min_accuracy' is 7"):
        rpc.infer("digits", [image(tritonclient.grpc)], parameters={"min_accuracy": 7})


async def test_http_aio_client_infers(http_aio: Any) -> None:  # noqa: ANN401
    assert await http_aio.is_server_ready()
    result = await http_aio.infer("digits", [image(tritonclient.http)], response_compression_algorithm="gzip")
    np.testing.assert_array_equal(result.as_numpy("scores"), IMAGE * 2)


async def test_grpc_aio_client_streams_and_an_error_does_not_end_the_stream(rpc_aio: Any) -> None:  # noqa: ANN401
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for name in ("digits", "absent", "digits"):
            yield {"model_name": name, "inputs": [image(tritonclient.grpc)], "request_id": f"for {name}"}

    answers = [(result, error) async for result, error in rpc_aio.stream_infer(requests())]
    assert [error is None for _, error in answers] == [True, False, True]
    assert "no model 'absent'" in str(answers[1][1])
    np.testing.assert_array_equal(answers[2][0].as_numpy("scores"), IMAGE * 2)


async def test_grpc_call_trails_the_story_and_pushback(servers: Servers) -> None:
    async with grpc.aio.insecure_channel(servers.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer(infer_message())
        await call
        trailers = dict(await call.trailing_metadata())
        assert trailers["x-tiergate-variant"] == "small"
        assert trailers["x-tiergate-budget-met"] == "true"
        servers.plane.error = Overloaded("busy", 1.5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(infer_message())
        assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1500"


async def test_grpc_client_that_leaves_cancels_the_wait(plane: StubPlane) -> None:
    plane.gate = asyncio.Event()
    async with grpc_server(plane) as address, grpc.aio.insecure_channel(address) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(infer_message())
        await plane.arrived.wait()
        call.cancel()
        await plane.left.wait()
    assert plane.events == ["waiting", "cancelled"]


REFUSED_CALLS = [
    ("/inference.GRPCInferenceService/Nothing", b"", "UNIMPLEMENTED", "route"),
    ("/other.Service/Nothing", b"x", "UNIMPLEMENTED", "route"),
    ("/inference.GRPCInferenceService/TraceSetting", b"", "UNIMPLEMENTED", "route"),
    ("/inference.GRPCInferenceService/RepositoryModelLoad", b"", "PERMISSION_DENIED", "route"),
    ("/inference.GRPCInferenceService/ModelInfer", b"\xff", "INVALID_ARGUMENT", "decode"),
    ("/inference.GRPCInferenceService/ModelInfer", b"", "NOT_FOUND", "decode"),
    ("/inference.GRPCInferenceService/ModelInfer", None, "RESOURCE_EXHAUSTED", "infer"),
]


@pytest.mark.parametrize(("path", "data", "code", "stage"), REFUSED_CALLS)
async def test_grpc_refusal_is_reported_once_with_how_far_the_call_came(
    plane: StubPlane, path: str, data: bytes | None, code: str, stage: str
) -> None:
    plane.error = Overloaded("busy", 1.5)
    refusals: list[Refusal] = []
    async with grpc_server(plane, refusals.append) as address, grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(infer_message().SerializeToString() if data is None else data)
    assert caught.value.code().name == code
    (refusal,) = refusals
    assert (refusal.protocol, refusal.stage, str(refusal.error)) == ("grpc", stage, caught.value.details())
    assert refusal.request_id


async def test_health_service_answers_for_server_and_models(servers: Servers) -> None:
    async with grpc.aio.insecure_channel(servers.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "inference.GRPCInferenceService", "digits"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await stub.Check(health_pb2.HealthCheckRequest(service="absent"))
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="absent"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
