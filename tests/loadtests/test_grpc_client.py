"""The gRPC sender against real servers, and its reading of header blocks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtests.clients.grpc import GrpcSender
from loadtests.clients.hpack import HeaderError, encode_request, grpc_status
from loadtests.plan import Address
from loadtests.recording import Status
from tests.loadtests.doubles import Ears, job_for, tcp_server

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator


@dataclass
class GrpcService:
    """A real gRPC server with one behaviour; keeps what it was asked."""

    code: grpc.StatusCode | None = None
    size: int = 3
    asked: list[tuple[service_pb2.ModelInferRequest, dict[str, str]]] = field(default_factory=list)

    async def infer(self, content: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        request = service_pb2.ModelInferRequest()
        request.ParseFromString(content)
        self.asked.append((request, {str(key): str(value) for key, value in context.invocation_metadata() or ()}))
        context.set_trailing_metadata((("x-tiergate-variant", "full"), ("x-note", "ein Wert, der lang genug ist")))
        if self.code is not None:
            await context.abort(self.code, "as planned")
        output = np.zeros(self.size, np.float32)
        output[1] = 1.0
        answer = service_pb2.ModelInferResponse(model_name="sums", raw_output_contents=[output.tobytes()])
        answer.outputs.add(name="y", datatype="FP32", shape=[1, self.size])
        answer.parameters["variant"].string_param = "full"
        answer.parameters["predicted_ms"].string_param = "1.5"
        message: bytes = answer.SerializeToString()
        return message


@asynccontextmanager
async def grpc_server(service: GrpcService, **options: int) -> AsyncIterator[Address]:
    server = grpc.aio.server(options=[(f"grpc.{name}", value) for name, value in options.items()])
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(service.infer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Address("", f"127.0.0.1:{port}")
    finally:
        await server.stop(None)


async def ask_grpc(address: Address, count: int, *, width: int = 4, timeout_s: float = 5.0) -> tuple[Ears, int]:
    ears = Ears(count)
    sender = GrpcSender(job_for(address, "grpc", width=width, timeout_s=timeout_s), ears)
    await sender.open()
    for index in range(count):
        sender.send(index, index % 2, index % 3)
    await ears.statuses()
    await sender.close()
    return ears, sender.opened


async def test_grpc_carries_row_and_knobs_and_reads_the_answer() -> None:
    service = GrpcService()
    async with grpc_server(service) as address:
        ears, _ = await ask_grpc(address, 2)
    found = ears.heard[1][1]
    assert found is not None
    assert (found.answer, found.variant, found.predicted_s) == (1, "full", 0.0015)
    request, metadata = service.asked[1]
    assert request.model_name == "sums--distilled"
    assert np.frombuffer(request.raw_input_contents[0], np.float32).tolist() == [4.0, 5.0, 6.0, 7.0]
    assert metadata["x-latency-budget-ms"] == "20"
    assert metadata["x-client-hardware"] == "mobile"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Status.SHED),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Status.EXPIRED),
        (grpc.StatusCode.UNAVAILABLE, Status.NOT_READY),
        (grpc.StatusCode.INVALID_ARGUMENT, Status.INVALID),
        (grpc.StatusCode.INTERNAL, Status.FAILED),
        (grpc.StatusCode.CANCELLED, Status.CANCELLED),
    ],
)
async def test_a_grpc_status_is_told(code: grpc.StatusCode, status: Status) -> None:
    async with grpc_server(GrpcService(code)) as address:
        ears, _ = await ask_grpc(address, 3)
    assert [ears.heard[index][0] for index in range(3)] == [status] * 3


async def test_large_messages_wait_for_the_servers_windows_and_arrive_whole() -> None:
    service = GrpcService(size=300_000)
    async with grpc_server(service) as address:
        ears, _ = await ask_grpc(address, 6, width=200_000)
    assert {status for status, _ in ears.heard.values()} == {Status.OK}
    rows = {np.frombuffer(request.raw_input_contents[0], np.float32)[0] for request, _ in service.asked}
    assert rows == {0.0, 200_000.0, 400_000.0}


async def test_calls_beyond_the_servers_streams_go_over_more_connections() -> None:
    async with grpc_server(GrpcService(), max_concurrent_streams=5) as address:
        ears, opened = await ask_grpc(address, 40)
    assert {status for status, _ in ears.heard.values()} == {Status.OK}
    assert opened > 1


async def test_a_server_that_does_not_speak_http2_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        del writer

    async with tcp_server(serve) as address:
        sender = GrpcSender(job_for(Address("", address.http), "grpc"), Ears(0))
        with pytest.raises(OSError, match="no HTTP/2 server"):
            await sender.open()
        await sender.close()


@pytest.mark.parametrize("code", range(17))
def test_a_status_is_found_plain_and_coded(code: int) -> None:
    assert grpc_status(b"\x00\x0bgrpc-status" + bytes((len(str(code)),)) + str(code).encode()) == code


def test_a_coded_status_of_another_encoder_is_found() -> None:
    # grpc-status: 0 as RFC 7541 codes it, after a table resize, a static entry and an unknown header.
    block = bytes.fromhex("20880003782d61016240889acac8b21234da8f8107")
    assert grpc_status(block) == 0


@pytest.mark.parametrize("block", [b"\xbe", b"\x00\x0bgrpc", b"\x7f\xff\xff", b"\x00\x0bgrpc-status\x02xx"])
def test_a_block_that_cannot_be_read_is_refused(block: bytes) -> None:
    with pytest.raises(HeaderError):
        grpc_status(block)


def test_long_header_values_are_encoded_by_their_length() -> None:
    block = encode_request("/p", "host", [("x-long", "v" * 300)])
    assert block.endswith(b"\x7f\xad\x01" + b"v" * 300)
