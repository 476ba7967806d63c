"""Servers behind this one that answer what they should not: each is told apart, bounded, and outlived."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import trustme
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.domain.errors import RemoteBackendFailed, RemoteUnavailable
from service.domain.remotes_file import TlsFiles
from service.engine.backends.backend import Call
from service.engine.backends.remote import Called, connect
from service.engine.backends.trust import read_trust
from service.engine.remote_variant import RemoteVariant, Server
from service.policy.endpoints import Endpoint as EndpointPolicy
from tests.builders import make_model
from tests.service.engine.remoting import VARIANTS
from tests.service.engine.test_remote_endpoints import Summing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.engine.backends.remote import Endpoint

CALLED = Called("sums--full", "7", make_model())
WAIT_S = 60.0
CALL = Call({"x": np.ones((2, 4), dtype=np.float32)}, WAIT_S)
JSON = b"Content-Type: application/json\r\n"


class Wire:
    """An HTTP server that answers raw bytes by the end of the path; ``asked`` are the requests' first lines."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.headers: list[bytes] = []
        self.flood = b""
        self.sent_bytes = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_errors = (ConnectionError, asyncio.IncompleteReadError)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(path := head.split(b" ")[1].decode())
                self.headers.append(head.lower())
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        await reader.readexactly(int(line.partition(b":")[2]))
                answer = next((content for end, content in self.answers.items() if path.endswith(end)), b"")
                writer.write(answer or reply(404, b"{}"))
                await writer.drain()
                while self.flood:
                    writer.write(self.flood)
                    self.sent_bytes += len(self.flood)
                    await writer.drain()
                if b"Connection: close" in answer:
                    break
        except with_errors:
            pass
        finally:
            writer.close()


def reply(status: int, body: bytes, headers: bytes = JSON) -> bytes:
    return b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Wire, Endpoint]]:
    wire = Wire()
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    endpoint = connect(f"http://127.0.0.1:{wire.port}", CALLED)
    try:
        yield wire, endpoint
    finally:
        await endpoint.close()
        server.close()


def outputs(**fields: Any) -> bytes:  # noqa: ANN401 - whatever JSON has
    output = {"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [1.0, 2.0], **fields}
    return json.dumps({"model_name": "m", "outputs": [output]}).encode()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (outputs(shape=[1, 1], data=[1.0]), r"has shape \[1, 1\]; the manifest says \[2, 1\]"),
        (outputs(shape=[2, 5], data=[1.0] * 10), r"has shape \[2, 5\]"),
        (outputs(shape=[2]), r"has shape \[2\]"),
        (outputs(shape=[2, 1, 1]), r"has shape \[2, 1, 1\]"),
        (outputs(shape=[2, 7]), "cannot be read: ValueError"),
        (outputs(shape="many"), "cannot be read"),
        (outputs(data=["a", "b"]), "cannot be read: ValueError"),
        (outputs(data={"a": 1}), "cannot be read"),
        (outputs(datatype="INT64"), "is int64; the manifest says FP32"),
        (outputs(datatype="FP1"), "is float64; the manifest says FP32"),
        (outputs(name="z"), "output 'y' is missing"),
        (b'{"outputs": 5}', "cannot be read"),
        (b"[1]", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"\xff\xfe", "."),
        (b"", "."),
    ],
)
async def test_answer_that_the_model_cannot_give_is_a_named_failure(body: bytes, told: str) -> None:
    async with wired() as (wire, endpoint):
        wire.answers["infer"] = reply(200, body)
        with pytest.raises(RemoteBackendFailed, match=told):
            await endpoint.infer(CALL)
        wire.answers["infer"] = reply(200, outputs())
        assert (await endpoint.infer(CALL))[0].tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "metadata", [b"[]", b"5", b"no JSON", b'{"inputs": 5}', b'{"inputs": [{}], "outputs": []}', b'{"inputs": [[]]}']
)
async def test_metadata_of_any_form_is_a_named_failure(metadata: bytes) -> None:
    async with wired() as (wire, endpoint):
        wire.answers["7"] = reply(200, metadata)
        for server in (b"{}", metadata):
            wire.answers["v2"] = reply(200, server)
            with pytest.raises(RemoteBackendFailed, match="cannot be read"):
                await endpoint.check()


async def test_redirect_is_not_followed() -> None:
    async with wired() as (other, _), wired() as (wire, endpoint):
        there = b"Location: http://127.0.0.1:%d/v2\r\n" % other.port
        for end in ("infer", "ready", "v2", "7"):
            wire.answers[end] = reply(307, b"", there)
        assert not await endpoint.is_ready()
        for call in (endpoint.infer(CALL), endpoint.check()):
            with pytest.raises(RemoteBackendFailed, match="307"):
                await call
        assert other.asked == []


async def test_cookies_are_not_kept() -> None:
    async with wired() as (wire, _):
        endpoint = connect(f"http://localhost:{wire.port}", CALLED)  # addresses have no cookies
        wire.answers["ready"] = reply(200, b"", b"Set-Cookie: a=b\r\n")
        for _ in range(2):
            assert await endpoint.is_ready()
        await endpoint.close()
        assert not any(b"cookie" in head for head in wire.headers)


async def test_compressed_answer_is_refused() -> None:
    async with wired() as (wire, endpoint):
        bomb = gzip.compress(b" " * 2**24)
        wire.answers["infer"] = reply(200, bomb, JSON + b"Content-Encoding: gzip\r\n")
        with pytest.raises(RemoteBackendFailed, match="compressed"):
            await endpoint.infer(CALL)
        assert b"accept-encoding: identity" in wire.headers[-1]


@pytest.mark.parametrize("end", ["infer", "ready"])
async def test_answer_without_end_is_cut_off(end: str) -> None:
    async with wired() as (wire, endpoint):
        wire.answers[end] = b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n"
        wire.flood = b" " * 2**16
        with pytest.raises(RemoteBackendFailed, match=f"larger than {CALLED.most_bytes} bytes"):
            await (endpoint.infer(CALL) if end == "infer" else endpoint.is_ready())
        wire.flood = b""
        assert wire.sent_bytes < 2**25  # what is allowed, and what sockets buffer


async def test_half_an_answer_is_a_server_out_of_reach() -> None:
    async with wired() as (wire, endpoint):
        wire.answers["infer"] = b"HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n{"
        with pytest.raises(RemoteUnavailable):
            await endpoint.infer(CALL)


async def test_page_of_html_is_told_in_one_printable_line() -> None:
    async with wired() as (wire, endpoint):
        wire.answers["infer"] = reply(500, b"<html>\x1b[31m" + b"x" * 5000)
        with pytest.raises(RemoteBackendFailed, match=r"^500: ") as caught:
            await endpoint.infer(CALL)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


async def test_watch_outlives_a_server_whose_metadata_are_nonsense() -> None:
    async with wired() as (wire, endpoint):
        wire.answers = {"ready": reply(200, b""), "7": reply(200, b"[]"), "v2": reply(200, b"[]")}
        remote = RemoteVariant(CALLED.info, VARIANTS[0], [Server(EndpointPolicy("http://there:1"), endpoint)])
        watching = asyncio.create_task(remote.watch(lambda: None))
        await asyncio.wait_for(remote.was_looked_at(), WAIT_S)
        assert remote.problem == "http://there:1: its answer cannot be read: AttributeError"
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class Odd(Summing):
    """Answers ``answer``, with ``trailer`` behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Any = None
        self.trailer: tuple[tuple[str, str], ...] = ()

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        context.set_trailing_metadata(self.trailer)
        return self.answer or await super().ModelInfer(request, context)


def tensor(shape: list[int], raw: bytes, datatype: str = "FP32") -> Any:  # noqa: ANN401 - protobuf's
    output = service_pb2.ModelInferResponse.InferOutputTensor(name="y", datatype=datatype, shape=shape)
    return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[raw] if raw else [])


async def test_nothing_that_a_grpc_server_answers_is_more_than_a_failure() -> None:
    server, servicer = grpc.aio.server(options=[("grpc.max_send_message_length", -1)]), Odd()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    endpoint = connect(f"grpc://127.0.0.1:{port}", CALLED)
    odd = (
        tensor([2, 1], b"123"),
        tensor([2**40, 2**40], b"12345678"),
        tensor([1, 1], b"1234"),
        tensor([2, 1], b"12345678", "NONSENSE"),
        tensor([2, 1], b""),
    )
    for servicer.answer in odd:
        with pytest.raises(RemoteBackendFailed):
            await endpoint.infer(CALL)
    servicer.answer = tensor([2, 2**20], bytes(2**23))
    with pytest.raises(RemoteBackendFailed, match=f"larger than max .* vs. {CALLED.most_bytes}"):
        await endpoint.infer(CALL)
    servicer.answer, servicer.trailer = None, tuple((f"k{number}", "v" * 1000) for number in range(100))
    with pytest.raises(RemoteBackendFailed):
        await endpoint.infer(CALL)
    servicer.trailer = ()
    assert (await endpoint.infer(CALL))[0].tolist() == [[4.0], [4.0]]
    await endpoint.close()
    await server.stop(None)


async def test_packed_message_is_not_unpacked() -> None:
    server, servicer = grpc.aio.server(compression=grpc.Compression.Gzip), Odd()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    endpoint = connect(f"grpc://127.0.0.1:{port}", CALLED)
    servicer.answer = tensor([2, 2**22], bytes(2**25))
    with pytest.raises(RemoteBackendFailed, match=r"cannot be read|gzip"):
        await endpoint.infer(CALL)
    await endpoint.close()
    await server.stop(None)


@asynccontextmanager
async def secured(scheme: str, folder: Path, authority: bytes) -> AsyncIterator[str]:
    """Serve with TLS, and ask for the client's certificate."""
    key, certificate = (folder / "127.0.0.1.key", folder / "127.0.0.1.pem")
    if scheme == "grpcs":
        pair = (key.read_bytes(), certificate.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=True)
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Summing(), server)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        yield f"grpcs://127.0.0.1:{port}"
        await server.stop(None)
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=authority.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    wire = Wire()
    wire.answers["infer"] = reply(200, outputs(data=[4.0, 4.0]))
    listening = await asyncio.start_server(wire.serve, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
async def test_server_of_an_unknown_authority_is_not_believed_and_ours_is_shown_our_certificate(
    scheme: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    for name in ("127.0.0.1", "client.test"):
        made = authority.issue_cert(name)
        (tmp_path / f"{name}.key").write_bytes(made.private_key_pem.bytes())
        (tmp_path / f"{name}.pem").write_bytes(made.cert_chain_pems[0].bytes())
    shown = {"client_cert_file": "client.test.pem", "client_key_file": "client.test.key"}
    async with secured(scheme, tmp_path, authority.cert_pem.bytes()) as address:
        for files, is_fine in (({"ca_file": "ca.pem", **shown}, True), ({"ca_file": "ca.pem"}, False), (shown, False)):
            trust = read_trust(TlsFiles(**{field: str(tmp_path / name) for field, name in files.items()}))
            endpoint = connect(address, CALLED, trust)
            if is_fine:
                assert (await endpoint.infer(CALL))[0].tolist() == [[4.0], [4.0]]
            else:
                with pytest.raises(RemoteBackendFailed):
                    await endpoint.infer(Call(CALL.inputs, 2.0))
            await endpoint.close()
