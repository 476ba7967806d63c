from __future__ import annotations

import asyncio
import gzip
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pytest
from tritonclient.grpc import InferResult, service_pb2

from service.api.grpc_asgi import CombinedApp, GrpcAsgiApp
from service.api.grpc_frames import decode_timeout, encode_message
from service.api.http_app import HttpApp
from service.domain.errors import InvalidRequest, Overloaded

if TYPE_CHECKING:
    from tests.service.api.conftest import StubPlane

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"


class Call:
    """One gRPC call into an ASGI application."""

    def __init__(self, app: Any, path: str, headers: dict[str, str] | None = None) -> None:  # noqa: ANN401
        lines = {"content-type": "application/grpc", "te": "trailers"} | (headers or {})
        self.app = app
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "http_version": "2",
            "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        }
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        self.answered = asyncio.Event()

    async def send(self, message: Any) -> None:  # noqa: ANN401
        self.sent.append(message)
        if message.get("body"):
            self.answered.set()

    async def run(self, *pieces: bytes) -> None:
        for index, piece in enumerate(pieces):
            self.inbox.put_nowait({"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1})
        await self.app(self.scope, self.inbox.get, self.send)

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    @property
    def messages(self) -> list[bytes]:
        body = b"".join(message.get("body", b"") for message in self.sent)
        found = []
        while body:
            end = 5 + struct.unpack(">BI", body[:5])[1]
            found.append(body[5:end])
            body = body[end:]
        return found

    @property
    def trailers(self) -> dict[str, str]:
        assert self.sent[0]["trailers"] is True
        assert self.sent[-1]["type"] == "http.response.trailers"
        return {name.decode(): value.decode() for name, value in self.sent[-1]["headers"]}


def frame(message: Any, *, packed: bool = False) -> bytes:  # noqa: ANN401
    data = message if isinstance(message, bytes) else message.SerializeToString()
    data = gzip.compress(data, mtime=0) if packed else data
    return struct.pack(">BI", packed, len(data)) + data


def infer_message(model: str = "digits") -> Any:  # noqa: ANN401
    message = service_pb2.ModelInferRequest(model_name=model, id="r1")
    message.inputs.add(name="image", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
    return message


@pytest.fixture
def app(plane: StubPlane, refusals: list[Any]) -> CombinedApp:
    grpc_app = GrpcAsgiApp(plane, max_body_bytes=1 << 16, on_refused=refusals.append)
    return CombinedApp(HttpApp(plane), grpc_app)


async def test_unary_call_answers_with_message_and_trailers(app: CombinedApp, plane: StubPlane) -> None:
    body = frame(infer_message())
    call = Call(app, INFER, {"grpc-timeout": "2H", "x-latency-budget-ms": "7"})
    await call.run(body[:3], body[3:20], body[20:], b"")
    result = InferResult(service_pb2.ModelInferResponse.FromString(call.messages[0]))
    np.testing.assert_array_equal(result.as_numpy("scores"), [[2, 4, 6, 8]])
    assert call.sent[0]["status"] == 200
    assert (b"content-type", b"application/grpc") in call.sent[0]["headers"]
    assert call.trailers["grpc-status"] == "0"
    assert call.trailers["x-tiergate-variant"] == "small"
    knobs = plane.requests[0].knobs
    assert knobs.budget_s == 0.007
    assert knobs.timeout_s is not None
    assert 0 < knobs.timeout_s <= 3600


async def test_compressed_message_is_read(app: CombinedApp) -> None:
    call = Call(app, INFER, {"grpc-encoding": "gzip"})
    await call.run(frame(infer_message(), packed=True))
    assert call.trailers["grpc-status"] == "0"


async def test_stream_answers_each_message_and_goes_on_after_an_error(app: CombinedApp, refusals: list[Any]) -> None:
    call = Call(app, STREAM)
    await call.run(*(frame(infer_message(model)) for model in ("digits", "absent", "digits")))
    answers = [service_pb2.ModelStreamInferResponse.FromString(message) for message in call.messages]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert answers[1].infer_response.id == "r1"
    assert call.trailers == {"grpc-status": "0"}
    assert [(refusal.request_id, refusal.stage) for refusal in refusals] == [("r1", "infer")]


async def test_stream_that_breaks_off_is_refused_as_a_request_that_could_not_be_decoded(
    app: CombinedApp, refusals: list[Any]
) -> None:
    call = Call(app, STREAM)
    await call.run(frame(infer_message()), frame(b"\xff"))
    assert call.trailers["grpc-status"] == "3"
    assert [refusal.stage for refusal in refusals] == ["decode"]


@pytest.mark.parametrize(
    ("path", "headers", "stage"),
    [("/x.y/Z", {}, "route"), (INFER, {"grpc-timeout": "soon"}, "decode"), (INFER, {}, "decode")],
)
async def test_refusal_says_how_far_the_call_came(
    app: CombinedApp, refusals: list[Any], path: str, headers: dict[str, str], stage: str
) -> None:
    await Call(app, path, headers).run(frame(b"\xff"))
    assert [(refusal.protocol, refusal.stage) for refusal in refusals] == [("grpc", stage)]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/x.y/Z", frame(b""), {}, "12", "no method '/x.y/Z' is offered"),
        (INFER, frame(infer_message("..")), {}, "5", "no model is named '..'"),
        (INFER, frame(b"\xff\xff"), {}, "3", "is no inference.ModelInferRequest"),
        (INFER, b"", {}, "3", "has 0 messages"),
        (INFER, frame(infer_message()) * 2, {}, "3", "has 2 messages"),
        (INFER, frame(infer_message())[:-1], {}, "3", "ends inside a message"),
        (INFER, struct.pack(">BI", 0, 1 << 30), {}, "8", "has 1073741824 bytes; this server takes at most 65536"),
        (INFER, frame(b" " * (1 << 20), packed=True), {"grpc-encoding": "gzip"}, "8", "larger than 65536 bytes"),
        (INFER, frame(b"", packed=True), {"grpc-encoding": "snappy"}, "3", "'snappy' is not supported"),
        (INFER, frame(infer_message()), {"grpc-timeout": "soon"}, "3", "'grpc-timeout' is 'soon'"),
        (INFER, frame(infer_message()), {"x-latency-budget-ms": "-1"}, "3", "'x-latency-budget-ms' is '-1'"),
    ],
)
async def test_call_is_refused_with_status_and_text(
    app: CombinedApp, path: str, body: bytes, headers: dict[str, str], status: str, message: str
) -> None:
    call = Call(app, path, headers)
    await call.run(body)
    assert call.messages == []
    assert call.trailers["grpc-status"] == status
    assert message in unquote(call.trailers["grpc-message"])


async def test_overload_trails_pushback(app: CombinedApp, plane: StubPlane) -> None:
    plane.error = Overloaded("busy", 0.25)
    call = Call(app, INFER)
    await call.run(frame(infer_message()))
    assert call.trailers == {"grpc-status": "8", "grpc-message": "busy", "grpc-retry-pushback-ms": "250"}


async def test_client_that_leaves_cancels_the_wait(app: CombinedApp, plane: StubPlane) -> None:
    plane.gate = asyncio.Event()
    call = Call(app, INFER)
    running = asyncio.create_task(call.run(frame(infer_message())))
    await plane.arrived.wait()
    call.leave()
    await running
    assert plane.events == ["waiting", "cancelled"]
    assert call.sent == []


async def test_client_that_leaves_ends_a_watch(app: CombinedApp) -> None:
    call = Call(app, WATCH)
    running = asyncio.create_task(call.run(frame(b"")))
    await call.answered.wait()
    call.leave()
    await running
    assert call.sent[-1]["type"] == "http.response.body"


async def test_http_goes_to_the_http_application(app: CombinedApp) -> None:
    call = Call(app, "/v2/health/live", {"content-type": "application/json"})
    call.scope["method"] = "GET"
    await call.run(b"")
    assert call.sent[0]["status"] == 200
    assert call.sent[1]["body"] == b'{"live":true,"ready":true}'


@pytest.mark.parametrize(
    ("text", "seconds"), [("1H", 3600.0), ("2M", 120.0), ("3S", 3.0), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9)]
)
def test_timeout_is_read(text: str, seconds: float) -> None:
    assert decode_timeout({b"grpc-timeout": text.encode()}) == pytest.approx(seconds)
    assert decode_timeout({}) is None


@pytest.mark.parametrize("text", ["", "5", "S", "-1S", "1.5S", "123456789S", "1s"])
def test_timeout_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="grpc-timeout"):
        decode_timeout({b"grpc-timeout": text.encode()})


def test_message_is_percent_encoded() -> None:
    assert encode_message("100% 'ü'\n") == b"100%25 '%C3%BC'%0A"
