from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.api.hardware import HINT_HEADERS
from service.api.http_app import HttpApp
from service.api.plane import Refusal
from service.domain.errors import DeadlineExceeded, InvalidRequest, Overloaded
from service.domain.tensors import Tensor
from tests.service.api.conftest import ask, content

if TYPE_CHECKING:
    from tests.service.api.conftest import Caller, StubPlane

INFER = "/v2/models/digits/infer"
IMAGE = {"name": "image", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}
BODY = json.dumps({"id": "a:1", "inputs": [IMAGE]}).encode()
JSON = {"content-type": "application/json"}


async def test_infer_answers_and_tells_the_story_in_parameters_and_headers(caller: Caller, plane: StubPlane) -> None:
    answer = await ask(caller, "POST", INFER, body=BODY, headers=JSON)
    assert answer.status == 200
    story = {
        "variant": "small",
        "tier": "quantized",
        "reason": "within_budget",
        "predicted_ms": 2.1,
        "predicted_p99_ms": 3.4,
        "queue_ms": 0.5,
        "compute_ms": 1.2,
        "total_ms": 1.9,
        "budget_met": True,
        "expected_accuracy": 0.9,
    }
    assert content(answer) == {
        "model_name": "digits",
        "model_version": "1",
        "id": "a:1",
        "parameters": story,
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 4], "data": [0.0, 2.0, 4.0, 6.0]}],
    }
    told = {name: answer.headers[f"x-tiergate-{name.replace('_', '-')}"] for name in story}
    assert told["queue_ms"] == "0.500"
    assert {
        name: json.loads(text) if text[0].isdigit() or text == "true" else text for name, text in told.items()
    } == story
    assert answer.headers["server-timing"] == "queue;dur=0.500, compute;dur=1.200, total;dur=1.900"
    assert plane.requests[0].protocol == "http"


async def test_infer_takes_version_pin_and_header_knobs(caller: Caller, plane: StubPlane) -> None:
    headers = JSON | {"x-latency-budget-ms": "20", "x-request-id": "from-header"}
    body = json.dumps({"inputs": [IMAGE]}).encode()
    answer = await ask(caller, "POST", "/v2/models/digits--small/versions/1/infer", body=body, headers=headers)
    request = plane.requests[0]
    assert (request.model, request.version, request.knobs.variant) == ("digits", "1", "small")
    assert request.knobs.budget_s == 0.02
    assert content(answer)["id"] == request.id == "from-header"


async def test_infer_makes_an_id_where_none_came(caller: Caller) -> None:
    body = json.dumps({"inputs": [IMAGE]}).encode()
    first = content(await ask(caller, "POST", INFER, body=body))["id"]
    second = content(await ask(caller, "POST", INFER, body=body))["id"]
    assert first
    assert first != second


async def test_infer_takes_the_length_header_for_pure_json(caller: Caller) -> None:
    headers = {"inference-header-content-length": str(len(BODY))}
    assert (await ask(caller, "POST", INFER, body=BODY, headers=headers)).status == 200


async def test_infer_reads_a_body_in_pieces(caller: Caller) -> None:
    assert (await ask(caller, "POST", INFER, body=[BODY[:10], b"", BODY[10:50], BODY[50:]])).status == 200


async def test_infer_mixes_binary_and_json_outputs(caller: Caller, plane: StubPlane) -> None:
    plane.outputs = lambda _: (
        Tensor("a", "FP32", np.ones((1, 2), np.float32)),
        Tensor("b", "INT64", np.ones((1,), np.int64)),
    )
    outputs = [{"name": "b", "parameters": {"binary_data": False}}, {"name": "a"}]
    body = json.dumps({"inputs": [IMAGE], "outputs": outputs, "parameters": {"binary_data_output": True}}).encode()
    answer = await ask(caller, "POST", INFER, body=body)
    length = int(answer.headers["inference-header-content-length"])
    told = json.loads(answer.body[:length])["outputs"]
    assert told[0] == {"name": "b", "datatype": "INT64", "shape": [1], "data": [1]}
    assert told[1]["parameters"] == {"binary_data_size": 8}
    assert answer.body[length:] == np.ones(2, np.float32).tobytes()


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_compressed_body_is_read(caller: Caller, encoding: str, pack: Any) -> None:  # noqa: ANN401
    packed = pack(BODY)
    answer = await ask(caller, "POST", INFER, body=[packed[:9], packed[9:]], headers={"content-encoding": encoding})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("accept", "unpack"), [("gzip", gzip.decompress), ("deflate", zlib.decompress), ("gzip, deflate", None)]
)
async def test_answer_is_compressed_only_for_one_explicit_coding(
    caller: Caller,
    accept: str,
    unpack: Any,  # noqa: ANN401
) -> None:
    body = json.dumps({"inputs": [IMAGE | {"shape": [1, 1000], "data": [0.5] * 1000}]}).encode()
    answer = await ask(caller, "POST", INFER, body=body, headers={"accept-encoding": accept})
    assert answer.headers.get("content-encoding") == (accept if unpack else None)
    plain = unpack(answer.body) if unpack else answer.body
    assert json.loads(plain)["outputs"][0]["data"] == [1.0] * 1000


REFUSED_BODIES: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("curl's default", BODY, {"content-type": "application/x-www-form-urlencoded"}, 415, "-H 'Content-Type"),
    ("multipart", BODY, {"content-type": "multipart/form-data; boundary=x"}, 415, "multipart/form-data"),
    ("pickle", BODY, {"content-type": "application/python-pickle"}, 415, "application/json"),
    ("brotli", BODY, {"content-encoding": "br"}, 415, "'br' is not supported"),
    ("zstd", BODY, {"content-encoding": "zstd"}, 415, "'zstd' is not supported"),
    ("two encodings", BODY, {"content-encoding": "gzip, gzip"}, 415, "allowed is one of"),
    ("no gzip", BODY, {"content-encoding": "gzip"}, 400, "compressed body is broken"),
    ("cut gzip", gzip.compress(BODY)[:-9], {"content-encoding": "gzip"}, 400, "cut off"),
    ("bytes after gzip", gzip.compress(BODY) + b"x", {"content-encoding": "gzip"}, 400, "data after its end"),
    ("bomb", gzip.compress(b" " * (64 << 20)), {"content-encoding": "gzip"}, 413, "larger than 1048576 bytes"),
    ("said to be large", b"", {"content-length": "99999999999"}, 413, "larger than 1048576 bytes"),
    ("large", b" " * ((1 << 20) + 1), {}, 413, "larger than 1048576 bytes"),
    ("length no number", BODY, {"inference-header-content-length": "-5"}, 400, "Content-Length' is '-5'"),
    ("length beyond the body", BODY, {"inference-header-content-length": "5000"}, 400, "Content-Length' is 5000"),
    ("long request id", BODY, {"x-request-id": "x" * 257}, 400, "257 characters"),
    ("control characters in the request id", BODY, {"x-request-id": "a\x07b"}, 400, "control characters"),
]


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [case[1:] for case in REFUSED_BODIES],
    ids=[case[0] for case in REFUSED_BODIES],
)
async def test_body_is_refused(caller: Caller, body: bytes, headers: dict[str, str], status: int, message: str) -> None:
    answer = await ask(caller, "POST", INFER, body=body, headers=headers)
    assert answer.status == status
    assert list(content(answer)) == ["error"]
    assert message in content(answer)["error"]
    assert ("connection" in answer.headers) == (status == 413)


async def test_large_body_is_refused_without_reading_the_rest(caller: Caller) -> None:
    answer = await ask(caller, "POST", INFER, body=[b" " * (1 << 19)] * 100)
    assert answer.status == 413
    assert caller.bodies_read <= 4


NAMES = ["..", "a%2fb", "Digits", "a\\b", "a\0b", "x" * 500, "", " ", "digits--", "--small", "digits--../x", "über"]


@pytest.mark.parametrize("name", NAMES)
async def test_impossible_name_is_not_found_on_every_route(caller: Caller, name: str) -> None:
    for method, path in (
        ("POST", f"/v2/models/{name}/infer"),
        ("GET", f"/v2/models/{name}"),
        ("GET", f"/v2/models/{name}/variants"),
        ("GET", f"/v2/models/{name}/artifact"),
        ("GET", f"/v2/models/digits/variants/{name}/artifact"),
    ):
        answer = await ask(caller, method, path, body=BODY)
        assert answer.status == 404
        assert len(content(answer)["error"]) < 400


@pytest.mark.parametrize("version", ["0", "01", "latest", "1e3", "-1", "9" * 30, "2", "1/x", ""])
async def test_impossible_version_is_not_found(caller: Caller, version: str) -> None:
    answer = await ask(caller, "POST", f"/v2/models/digits/versions/{version}/infer", body=BODY)
    assert answer.status == 404


async def test_overload_carries_retry_after(caller: Caller, plane: StubPlane, refusals: list[Any]) -> None:
    plane.error = Overloaded("model 'digits' has 100 requests queued; at most 100 are allowed", retry_after_s=1.2)
    answer = await ask(caller, "POST", INFER, body=BODY)
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert refusals == [Refusal("http", "a:1", plane.error, "infer")]


async def test_deadline_exceeded_is_504(caller: Caller, plane: StubPlane) -> None:
    plane.error = DeadlineExceeded("too late")
    assert (await ask(caller, "POST", INFER, body=BODY)).status == 504


async def test_unexpected_error_is_500_without_details(caller: Caller, plane: StubPlane, refusals: list[Any]) -> None:
    plane.error = RuntimeError("object at 0x7f")
    answer = await ask(caller, "POST", INFER, body=BODY)
    assert answer.status == 500
    assert content(answer) == {"error": "internal error; request id a:1"}
    assert (refusals[0].error, refusals[0].stage) == (plane.error, "infer")


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
async def test_output_that_json_cannot_carry_is_refused_with_advice(
    caller: Caller, plane: StubPlane, datatype: str
) -> None:
    plane.outputs = lambda _: (Tensor("y", datatype, np.zeros(1, np.uint16)),)
    answer = await ask(caller, "POST", INFER, body=BODY)
    assert answer.status == 400
    assert "ask for binary data" in content(answer)["error"]


async def test_bytes_output_that_is_no_utf8_is_refused_with_advice(caller: Caller, plane: StubPlane) -> None:
    plane.outputs = lambda _: (Tensor("y", "BYTES", np.array([b"\xff"], object)),)
    answer = await ask(caller, "POST", INFER, body=BODY)
    assert answer.status == 400
    assert "output 'y' holds bytes that are not UTF-8; ask for binary data" in content(answer)["error"]


async def test_client_that_leaves_cancels_the_wait(caller: Caller, plane: StubPlane, refusals: list[Any]) -> None:
    plane.gate = asyncio.Event()
    call = asyncio.create_task(caller.call("POST", INFER, body=BODY))
    await plane.arrived.wait()
    caller.left.set()
    assert await call is None
    assert plane.events == ["waiting", "cancelled"]
    assert refusals == []


async def test_server_that_cancels_is_obeyed(caller: Caller, plane: StubPlane) -> None:
    plane.gate = asyncio.Event()
    call = asyncio.create_task(caller.call("POST", INFER, body=BODY))
    await plane.arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_client_that_leaves_within_the_body_gets_no_answer(plane: StubPlane) -> None:
    messages = [{"type": "http.request", "body": BODY[:9], "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:  # noqa: ANN401
        return messages.pop(0)

    async def send(message: Any) -> None:  # noqa: ANN401
        sent.append(message)

    await HttpApp(plane)({"type": "http", "method": "POST", "path": INFER, "headers": []}, receive, send)
    assert sent == []
    assert plane.requests == []


async def test_lifespan_is_somebody_elses(plane: StubPlane) -> None:
    async def never(*_: Any) -> Any:  # noqa: ANN401
        raise AssertionError

    with pytest.raises(TypeError, match="'lifespan'"):
        await HttpApp(plane)({"type": "lifespan"}, never, never)


async def test_unknown_route_and_method_are_refused_in_the_protocols_form(caller: Caller) -> None:
    missing = await ask(caller, "GET", "/v3/models")
    assert (missing.status, content(missing)) == (
        404,
        {"error": "no route '/v3/models'; the protocol's paths start at /v2"},
    )
    wrong = await ask(caller, "DELETE", "/v2/models/digits")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")
    assert "DELETE is not allowed" in content(wrong)["error"]
    for path in ("/v2/repository/index", INFER):
        assert (await ask(caller, "GET", path)).headers["allow"] == "POST"


async def test_head_has_the_headers_and_no_body(caller: Caller) -> None:
    answer = await ask(caller, "HEAD", "/v2/health/ready")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "26")


async def test_loading_is_for_administrators(caller: Caller, plane: StubPlane) -> None:
    for action in ("load", "unload"):
        path = f"/v2/repository/models/digits/{action}"
        assert (await ask(caller, "POST", path)).status == 403
        caller_of_admin = type(caller)(HttpApp(plane, admin=True))
        assert (await ask(caller_of_admin, "POST", path)).status == 200
    assert plane.events == ["load digits", "unload digits"]


async def test_refusals_are_reported_with_protocol_and_id(caller: Caller, refusals: list[Any]) -> None:
    await ask(caller, "POST", INFER, body=b"{", headers={"x-request-id": "r7"})
    (refusal,) = refusals
    assert (refusal.protocol, refusal.request_id, refusal.stage) == ("http", "r7", "decode")
    assert isinstance(refusal.error, InvalidRequest)


@pytest.mark.parametrize(
    ("method", "path", "stage"),
    [
        ("GET", "/favicon.ico", "route"),
        ("GET", INFER, "route"),
        ("DELETE", "/v2/models/digits", "route"),
        ("GET", "/v2/models/absent", "route"),
        ("GET", "/v2/models/digits/route?budget_ms=0", "route"),
        ("POST", "/v2/repository/models/digits/load", "route"),
        ("POST", "/v2/models/../infer", "decode"),
        ("POST", INFER, "decode"),
        ("POST", "/v2/models/absent/infer", "infer"),
    ],
)
async def test_refusals_are_reported_once_with_how_far_the_request_came(
    caller: Caller, refusals: list[Any], method: str, path: str, stage: str
) -> None:
    answer = await ask(caller, method, path, body=b"" if path == INFER else BODY)
    assert answer.status >= 400
    assert [(refusal.protocol, refusal.stage, bool(refusal.request_id)) for refusal in refusals] == [
        ("http", stage, True)
    ]


async def test_malformed_request_id_of_an_infer_is_a_decode_refusal(caller: Caller, refusals: list[Any]) -> None:
    await ask(caller, "POST", INFER, body=BODY, headers={"x-request-id": "x" * 300})
    assert [refusal.stage for refusal in refusals] == ["decode"]


async def test_answer_that_json_cannot_carry_is_refused_after_the_inference(
    caller: Caller, plane: StubPlane, refusals: list[Any]
) -> None:
    plane.outputs = lambda _: (Tensor("y", "FP16", np.zeros(1, np.uint16)),)
    await ask(caller, "POST", INFER, body=BODY)
    assert [refusal.stage for refusal in refusals] == ["infer"]


async def test_replies_about_hardware_ask_browsers_for_hints_and_inference_does_not(caller: Caller) -> None:
    asking = ("/v2", "/v2/models/digits", "/v2/models/digits/route", "/v2/models/digits/artifact")
    for path in asking:
        answer = await ask(caller, "GET", path)
        named = {name.strip().lower() for name in answer.headers["accept-ch"].split(",")}
        assert named == HINT_HEADERS
    assert "accept-ch" not in (await ask(caller, "POST", INFER, body=BODY)).headers
