"""What goes over the wire to another server, and what its failures become: real sockets, servers of a few lines."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from aiohttp import web
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.domain.errors import RemoteBackendFailed, RemoteUnavailable
from service.engine.backends.backend import Call
from service.engine.backends.remote import Called, connect
from tests.builders import make_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from service.engine.backends.remote import Endpoint

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
CALLED = Called("sums--full", "7", make_model())
WAIT_S = 60.0


class Summing(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers the sum of each row, or with a status."""

    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None
        self.held = False
        self.asked: list[tuple[Any, float]] = []
        self.entered, self.cancelled = asyncio.Event(), asyncio.Event()
        self.datatype = "FP32"
        self.metadata: dict[str, str] = {}

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - protobuf's names and types
        del context
        return service_pb2.ModelReadyResponse(ready=(request.name, request.version) == ("sums--full", "7"))

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        del context
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata
        inputs, outputs = tensor(name="x", datatype="FP32"), tensor(name="y", datatype=self.datatype)
        return service_pb2.ModelMetadataResponse(name=request.name, inputs=[inputs], outputs=[outputs])

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        self.asked.append((request, context.time_remaining()))
        self.metadata = dict(context.invocation_metadata())
        self.entered.set()
        if self.held:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        if self.status is not None:
            await context.abort(self.status, "told to")
        data = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(request.inputs[0].shape))
        output = service_pb2.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[len(data), 1])
        sums = data.sum(axis=1, keepdims=True).tobytes()
        return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[sums])


@asynccontextmanager
async def calling(servicer: Summing) -> AsyncIterator[Endpoint]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    endpoint = connect(f"grpc://127.0.0.1:{port}", CALLED)
    try:
        yield endpoint
    finally:
        await endpoint.close()
        await server.stop(None)


async def test_a_call_names_the_variant_there_and_carries_what_is_left_of_the_deadline() -> None:
    async with calling(servicer := Summing()) as endpoint:
        assert await endpoint.is_ready()
        assert await endpoint.check() == ""
        (output,) = await endpoint.infer(Call({"x": ROWS}, 20.0, traceparent="00-abc-def-01"))
        assert output.tolist() == [[6.0], [22.0]]
        assert servicer.metadata["traceparent"] == "00-abc-def-01"
        request, left_s = servicer.asked[0]
        assert (request.model_name, request.model_version) == ("sums--full", "7")
        assert request.parameters["timeout"].int64_param == 20_000_000
        assert 0.0 < left_s <= 21.0  # gRPC rounds up
        assert servicer.metadata["x-latency-budget-ms"] == "20000.000"


async def test_cancelling_a_call_reaches_the_server() -> None:
    servicer = Summing()
    servicer.held = True
    async with calling(servicer) as endpoint:
        task = asyncio.create_task(endpoint.infer(Call({"x": ROWS}, WAIT_S)))
        await asyncio.wait_for(servicer.entered.wait(), WAIT_S)
        task.cancel()
        await asyncio.wait_for(servicer.cancelled.wait(), WAIT_S)
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, RemoteUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, RemoteUnavailable),
        (grpc.StatusCode.INTERNAL, RemoteBackendFailed),
        (grpc.StatusCode.INVALID_ARGUMENT, RemoteBackendFailed),
    ],
)
async def test_only_a_server_that_computed_nothing_counts_as_unavailable(
    status: grpc.StatusCode, kind: type[Exception]
) -> None:
    servicer = Summing()
    servicer.status = status
    async with calling(servicer) as endpoint:
        with pytest.raises(kind, match="told to") as caught:
            await endpoint.infer(Call({"x": ROWS}, WAIT_S))
        assert type(caught.value) is kind


async def test_an_interface_that_differs_is_told() -> None:
    servicer = Summing()
    servicer.datatype = "INT64"
    async with calling(servicer) as endpoint:
        assert await endpoint.check() == "its outputs are {'y': 'INT64'}; the manifest declares {'y': 'FP32'}"


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_where_nothing_listens_the_server_is_unavailable(scheme: str) -> None:
    with socket.socket() as taken:  # so that nobody else listens there meanwhile
        taken.bind(("127.0.0.1", 0))
        endpoint = connect(f"{scheme}://127.0.0.1:{taken.getsockname()[1]}", CALLED)
        for call in (endpoint.is_ready(), endpoint.infer(Call({"x": ROWS}, WAIT_S))):
            with pytest.raises(RemoteUnavailable):
                await call
        await endpoint.close()


@asynccontextmanager
async def serving_http(
    infer: Callable[[web.Request], Awaitable[web.Response]], extensions: list[str]
) -> AsyncIterator[Endpoint]:
    async def describe(request: web.Request) -> web.Response:
        if request.path == "/v2":
            return web.json_response({"name": "stub", "version": "1", "extensions": extensions})
        tensors = {"inputs": [{"name": "x", "datatype": "FP32"}], "outputs": [{"name": "y", "datatype": "FP32"}]}
        return web.json_response(tensors)

    app, path = web.Application(), "/v2/models/sums--full/versions/7"
    app.add_routes([web.get("/v2", describe), web.get(path, describe), web.post(f"{path}/infer", infer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = connect(f"http://127.0.0.1:{runner.addresses[0][1]}", CALLED)
    try:
        yield endpoint
    finally:
        await endpoint.close()
        await runner.cleanup()


@pytest.mark.parametrize("extensions", [[], ["binary_tensor_data"]])
async def test_binary_tensors_go_over_http_only_where_the_server_offers_them(extensions: list[str]) -> None:
    seen = []

    async def infer(request: web.Request) -> web.Response:
        seen.append("Inference-Header-Content-Length" in request.headers)
        output = {"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [6.0, 22.0]}
        return web.json_response({"model_name": "sums", "outputs": [output]})

    async with serving_http(infer, extensions) as endpoint:
        assert await endpoint.check() == ""
        (output,) = await endpoint.infer(Call({"x": ROWS}, 20.0))
        assert (output.tolist(), output.dtype.name) == ([[6.0], [22.0]], "float32")
        assert seen == [bool(extensions)]


async def test_http_calls_keep_their_connection() -> None:
    ports = set()

    async def infer(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        assert (await request.json())["parameters"]["timeout"] == 20_000_000
        assert request.headers["x-latency-budget-ms"] == "20000.000"
        output = {"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [6.0, 22.0]}
        return web.json_response({"model_name": "sums", "outputs": [output]})

    async with serving_http(infer, []) as endpoint:
        await endpoint.check()
        for _ in range(5):
            await endpoint.infer(Call({"x": ROWS}, 20.0))
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, '{"error": "leaving"}', RemoteUnavailable),
        (429, '{"error": "full"}', RemoteUnavailable),
        (500, '{"error": "broken"}', RemoteBackendFailed),
        (200, "no JSON", RemoteBackendFailed),
        (200, '{"outputs": []}', RemoteBackendFailed),
    ],
)
async def test_failures_over_http_are_told_apart(status: int, body: str, kind: type[Exception]) -> None:
    async def infer(request: web.Request) -> web.Response:
        del request
        return web.Response(status=status, text=body)

    async with serving_http(infer, []) as endpoint:
        with pytest.raises(kind) as caught:
            await endpoint.infer(Call({"x": ROWS}, WAIT_S))
        assert type(caught.value) is kind
