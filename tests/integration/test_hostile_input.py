"""Mistakes and attacks over real sockets, on both protocols and both frontends: refused clearly, and survived."""

from __future__ import annotations

import gzip
import json
import re
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tests.integration.clients import Question, ask_grpc, ask_plain
from tests.integration.gateway_process import until
from tests.integration.raw_connections import METHOD, connect, converse, is_connected, read_what_came, reset_streams
from tests.malformed import BINARY_CASES, JSON_CASES, PROTO_CASES, RAW_CASES, SHAPES, message, one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.gateway_process import GatewayProcess

INFER = "/v2/models/sums/infer"
ARTIFACT = "/v2/models/sums/variants/full/artifact"
JSON = {"Content-Type": "application/json"}
MEBIBYTE = 2**20
MANY_FILES = 20
PATIENCE_S = 300.0


@pytest.fixture(autouse=True, scope="module")
def _gateway_survives(gateway: GatewayProcess) -> Iterator[None]:
    """After everything in this file the gateway answers, and the worst of it takes no memory when it comes again."""
    assert not ask_plain(gateway, Question()).refused
    yield
    assert gateway.call("GET", "/v2/health/ready")[0] == 200
    assert not ask_plain(gateway, Question()).refused
    assert not ask_grpc(gateway, Question()).refused
    offend_worst(gateway)  # the first round lets the allocator take what it keeps for the next
    before = gateway.rss_bytes()
    offend_worst(gateway)
    assert gateway.rss_bytes() - before < 64 * MEBIBYTE


def offend_worst(gateway: GatewayProcess) -> None:
    """Send what takes the most memory while it is refused, on both protocols."""
    test_gzip_bomb_costs_bounded_memory(gateway)
    test_message_over_the_limit_is_refused_over_grpc(gateway)
    test_message_over_grpcs_own_default_limit_is_read(gateway)
    test_many_tiny_chunks_are_read(gateway)
    status, _ = refuse_http(gateway, one(shape=[2 * MEBIBYTE], data=[0] * (2 * MEBIBYTE)), JSON)
    assert status == 400
    reset_streams(gateway, 1000)


def refuse_http(gateway: GatewayProcess, body: bytes, headers: dict[str, str], path: str = INFER) -> tuple[int, str]:
    """Send a body and return the status and the error's message."""
    status, _, content = gateway.call("POST", path, body, headers)
    assert set(content) == {"error"}
    return status, content["error"]


def refuse_grpc(gateway: GatewayProcess, data: bytes) -> tuple[grpc.StatusCode, str]:
    """Send bytes as a ``ModelInfer`` request and return the status and its message."""
    with grpc.insecure_channel(gateway.grpc) as channel:
        call: Any = channel.unary_unary(METHOD)
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=PATIENCE_S)
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize(("body", "expected"), [case[1:] for case in JSON_CASES], ids=[case[0] for case in JSON_CASES])
def test_malformed_json_is_refused(gateway: GatewayProcess, body: bytes, expected: str) -> None:
    status, text = refuse_http(gateway, body, JSON)
    assert status == 400
    assert re.search(expected, text), text


@pytest.mark.parametrize(
    ("changes", "raw", "expected"), [case[1:] for case in BINARY_CASES], ids=[case[0] for case in BINARY_CASES]
)
def test_malformed_binary_is_refused(
    gateway: GatewayProcess, changes: dict[str, Any], raw: bytes, expected: str
) -> None:
    status, text = refuse_http(gateway, *binary({"name": "x", "shape": [2], "datatype": "FP32"} | changes, raw))
    assert status == 400
    assert re.search(expected, text), text


@pytest.mark.parametrize(
    ("build", "expected"), [case[1:] for case in PROTO_CASES], ids=[case[0] for case in PROTO_CASES]
)
def test_malformed_proto_is_refused(gateway: GatewayProcess, build: Any, expected: str) -> None:  # noqa: ANN401
    request = build()
    request.model_name = "sums"
    code, text = refuse_grpc(gateway, request.SerializeToString())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(expected, text), text


def test_bytes_that_are_no_proto_are_refused(gateway: GatewayProcess) -> None:
    code, text = refuse_grpc(gateway, b"\xff" * 1000)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "ModelInferRequest" in text


@pytest.mark.parametrize(("shape", "expected"), [case[1:] for case in SHAPES], ids=[case[0] for case in SHAPES])
def test_impossible_shape_is_refused_on_both_protocols(
    gateway: GatewayProcess, shape: list[int], expected: str
) -> None:
    status, text = refuse_http(gateway, one(shape=shape), JSON)
    assert (status, bool(re.search(expected, text))) == (400, True)
    header = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    status, text = refuse_http(gateway, *binary(header, b"\0" * 8))
    assert (status, bool(re.search(expected, text))) == (400, True)
    request = message(shape=tuple(shape), raw=b"\0" * 8)
    request.model_name = "sums"
    code, text = refuse_grpc(gateway, request.SerializeToString())
    assert (code, bool(re.search(expected, text))) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize(
    ("datatype", "raw", "expected"), [case[1:] for case in RAW_CASES], ids=[case[0] for case in RAW_CASES]
)
def test_malformed_raw_tensor_is_refused_on_both_protocols(
    gateway: GatewayProcess, datatype: str, raw: bytes, expected: str
) -> None:
    header = {"name": "x", "shape": [2], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    status, text = refuse_http(gateway, *binary(header, raw))
    assert (status, bool(re.search(expected, text))) == (400, True)
    request = message(datatype, raw=raw)
    request.model_name = "sums"
    code, text = refuse_grpc(gateway, request.SerializeToString())
    assert (code, bool(re.search(expected, text))) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize("length", ["-1", "abc", "99999", "1e3", "9" * 30])
def test_wrong_json_length_header_is_refused(gateway: GatewayProcess, length: str) -> None:
    status, text = refuse_http(gateway, one(), JSON | {"Inference-Header-Content-Length": length})
    assert status == 400
    assert "Inference-Header-Content-Length" in text


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/x-python-pickle",
        "text/yaml",
    ],
)
def test_other_media_type_is_refused(gateway: GatewayProcess, content_type: str) -> None:
    status, text = refuse_http(gateway, one(), {"Content-Type": content_type})
    assert status == 415
    assert "application/json" in text


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "pickle"])
def test_other_encoding_is_refused(gateway: GatewayProcess, encoding: str) -> None:
    status, text = refuse_http(gateway, one(), JSON | {"Content-Encoding": encoding})
    assert status == 415
    assert "gzip" in text


def test_broken_gzip_is_refused(gateway: GatewayProcess) -> None:
    status, _ = refuse_http(gateway, gzip.compress(one())[:-10], JSON | {"Content-Encoding": "gzip"})
    assert status == 400


def test_gzip_bomb_costs_bounded_memory(gateway: GatewayProcess) -> None:
    bomb = gzip.compress(b" " * (512 * MEBIBYTE), 9)
    before = gateway.rss_bytes()
    status, text = refuse_http(gateway, bomb, JSON | {"Content-Encoding": "gzip"})
    assert (status, "67108864" in text) == (413, True)
    assert gateway.rss_bytes() - before < 200 * MEBIBYTE


def test_announced_size_over_the_limit_is_refused_unread(gateway: GatewayProcess) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {2**40}\r\n\r\n"
    assert b" 413 " in converse(gateway, head.encode()).split(b"\r\n")[0]


def test_message_over_the_limit_is_refused_over_grpc(gateway: GatewayProcess) -> None:
    request = message(shape=(17 * MEBIBYTE,), raw=bytes(68 * MEBIBYTE))
    request.model_name = "sums"
    with grpc.insecure_channel(gateway.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
        call: Any = channel.unary_unary(METHOD)
        with pytest.raises(grpc.RpcError) as caught:
            call(request.SerializeToString(), timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_message_over_grpcs_own_default_limit_is_read(gateway: GatewayProcess) -> None:
    request = message(shape=(2 * MEBIBYTE,), raw=bytes(8 * MEBIBYTE))
    request.model_name = "sums"
    code, text = refuse_grpc(gateway, request.SerializeToString())
    assert (code, "shape [2097152]" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "a%5cb",
        "a%00b",
        "x" * 500,
        "Sums",
        ".sums",
        "sums%20",
        "%ff",
        "sums--",
    ],
)
def test_impossible_model_name_is_refused(gateway: GatewayProcess, name: str) -> None:
    if name == "%ff" and "pyvoy" in str(gateway.process.args):
        pytest.skip("pyvoy leaves a path that is no UTF-8 unanswered; see the decision page on frontends")
    status, _, content = gateway.call("GET", f"/v2/models/{name}")
    assert status in (400, 404)
    if isinstance(content, dict):  # Envoy answers some of these itself, without a body
        assert content["error"]


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "a\\b", "a\0b", "x" * 500, ""])
def test_impossible_model_name_is_refused_over_grpc(gateway: GatewayProcess, name: str) -> None:
    request = service_pb2.ModelInferRequest(model_name=name, raw_input_contents=[b"\0" * 16])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    code, _ = refuse_grpc(gateway, request.SerializeToString())
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


def test_many_tiny_chunks_are_read(gateway: GatewayProcess) -> None:
    body = one(shape=[1, 4], data=[1, 1, 1, 1])
    body += b" " * (65_537 - len(body))
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = converse(gateway, head.encode() + chunks)
    assert answer.startswith(b"HTTP/1.1 200")


def test_header_flood_is_refused(gateway: GatewayProcess) -> None:
    flood = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 1000) for number in range(1000))
    answer = converse(gateway, b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + flood + b"\r\n")
    assert not answer or b" 431 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize(
    "start",
    [
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-",
        b"POST "
        + INFER.encode()
        + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["headers", "body"],
)
def test_client_that_never_finishes_is_cut_off(gateway: GatewayProcess, start: bytes) -> None:
    if "pyvoy" in str(gateway.process.args):
        pytest.skip("pyvoy does not expose Envoy's request timeouts; see the decision page on frontends")
    answer = converse(gateway, start)  # returns when the gateway closes the connection
    assert not answer or b" 408 " in answer.split(b"\r\n")[0]


def test_client_that_never_reads_its_answer_is_cut_off(gateway: GatewayProcess) -> None:
    if "pyvoy" in str(gateway.process.args):
        pytest.skip("pyvoy does not expose Envoy's stream timeouts; see the decision page on frontends")
    host, _, port = gateway.http.partition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect((host, int(port)))
        # One after the other, because the kernel may take a whole file or two off the gateway's hands.
        connection.sendall(f"GET {ARTIFACT} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * MANY_FILES)
        here = connection.getsockname()[1]

        def is_cut_off() -> bool:
            assert gateway.call("GET", "/v2/health/ready")[0] == 200  # others are answered all the while
            return not is_connected(gateway, here)

        until(lambda: is_connected(gateway, here))  # the gateway has yet to accept it
        until(is_cut_off)
        answer = read_what_came(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    announced = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index] # it is there, or this fails
    assert head.startswith(b"HTTP/1.1 200")
    assert len(body) < announced * MANY_FILES


def test_good_clients_are_answered_beside_many_slow_ones(gateway: GatewayProcess) -> None:
    start = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n".encode()
    with ExitStack() as stack:
        for number in range(50):
            slow = stack.enter_context(connect(gateway.http))
            slow.sendall(start if number % 2 else start + b"\r\n{")
        for ask in (ask_plain, ask_grpc):
            assert ask(gateway, Question()).sums == (4.0,)


def test_stream_flood_is_survived(gateway: GatewayProcess) -> None:
    with connect(gateway.grpc):  # one client keeps a connection through it
        reset_streams(gateway, 20_000)
        assert ask_grpc(gateway, Question()).sums == (4.0,)
        assert ask_plain(gateway, Question()).sums == (4.0,)


def test_many_calls_cancelled_at_once_are_survived(gateway: GatewayProcess) -> None:
    request = message(shape=(1, 4), raw=b"\0" * 16)
    request.model_name = "sums"
    with grpc.insecure_channel(gateway.grpc) as channel:
        call: Any = channel.unary_unary(METHOD)
        calls = [call.future(request.SerializeToString(), timeout=PATIENCE_S) for _ in range(500)]
        for item in calls:
            item.cancel()
        assert ask_grpc(gateway, Question()).sums == (4.0,)
    assert ask_plain(gateway, Question()).sums == (4.0,)


def test_only_inferences_that_cannot_be_decoded_count_as_malformed(gateway: GatewayProcess) -> None:
    before = malformed_count(gateway)
    for method, path in (("GET", "/favicon.ico"), ("GET", INFER), ("POST", "/v2/repository/models/sums/load")):
        assert gateway.call(method, path)[0] >= 400
    assert gateway.call("POST", INFER.replace("sums", "absent"), one(), JSON)[0] == 404
    assert malformed_count(gateway) == before
    assert gateway.call("POST", INFER, b"{", JSON)[0] == 400
    refuse_grpc(gateway, b"\xff" * 9)
    assert malformed_count(gateway) == before + 2


def test_what_is_no_http_is_refused(gateway: GatewayProcess) -> None:
    answer = converse(gateway, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n" * 10)
    assert not answer or b" 400 " in answer.split(b"\r\n")[0]


def test_what_is_no_grpc_is_survived(gateway: GatewayProcess) -> None:
    with connect(gateway.grpc) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert not ask_grpc(gateway, Question()).refused


@pytest.mark.parametrize("path", ["/", "/v3", "/v2/nothing", "/v2/models/sums/nothing", "/v2/models/sums/versions/x"])
def test_unknown_path_is_a_clear_404(gateway: GatewayProcess, path: str) -> None:
    status, _, content = gateway.call("GET", path)
    assert (status, set(content)) == (404, {"error"})


def test_wrong_method_is_a_405_that_names_the_right_one(gateway: GatewayProcess) -> None:
    status, headers, content = gateway.call("GET", INFER)
    assert (status, headers["allow"], set(content)) == (405, "POST", {"error"})


def binary(tensor: dict[str, Any], raw: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a binary request with one tensor."""
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + raw, headers


def malformed_count(gateway: GatewayProcess) -> float:
    """Return how many inferences could not be decoded, on either protocol."""
    text = gateway.call("GET", "/metrics")[2].decode()
    lines = [line for line in text.splitlines() if line.startswith("tiergate_requests_total{")]
    return sum(float(line.split()[-1]) for line in lines if 'model=""' in line and 'outcome="invalid"' in line)
