"""What the gateway says about itself, and the less travelled roads of the protocol, read by Triton's own clients."""

from __future__ import annotations

import hashlib
import queue
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from grpc_health.v1 import health_pb2
from tritonclient.utils import InferenceServerException

from tests.integration.clients import Question, ask_grpc, ask_plain
from tests.integration.gateway_process import ROOMY_MS, TIGHT_MS, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.gateway_process import GatewayProcess

PATIENCE_S = 300.0


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, gateway: GatewayProcess) -> Iterator[Any]:
    """Triton's client for either protocol; both have the same methods."""
    made: Any = (
        triton_http.InferenceServerClient(gateway.http)
        if request.param == "http"
        else triton_grpc.InferenceServerClient(gateway.grpc)
    )
    with made:
        yield made


def as_json(client: Any, method: str, *arguments: str) -> Any:  # noqa: ANN401 - Triton ships no types
    """Call a method of either client and return plain JSON."""
    options = {"as_json": True} if isinstance(client, triton_grpc.InferenceServerClient) else {}
    return getattr(client, method)(*arguments, **options)


def test_server_and_model_are_live_and_ready(client: Any) -> None:  # noqa: ANN401
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sums")
    assert client.is_model_ready("sums", "1")
    assert client.is_model_ready("sums--distilled")


def test_variant_that_does_not_exist_is_not_ready(gateway: GatewayProcess) -> None:
    status, _, content = gateway.call("GET", "/v2/models/sums--absent/ready")
    assert (status, "no variant 'absent'" in content["error"]) == (404, True)
    with (
        triton_grpc.InferenceServerClient(gateway.grpc) as client,
        pytest.raises(InferenceServerException, match="no variant 'absent'"),
    ):
        client.is_model_ready("sums--absent")


def test_metadata_tells_the_interface_with_its_batch_dimension(client: Any) -> None:  # noqa: ANN401
    assert as_json(client, "get_server_metadata")["name"] == "tiergate"
    metadata = as_json(client, "get_model_metadata", "sums")
    assert (metadata["name"], metadata["versions"]) == ("sums", ["1"])
    assert [int(dim) for dim in metadata["inputs"][0]["shape"]] == [-1, 4]
    assert [int(dim) for dim in metadata["outputs"][0]["shape"]] == [-1, 1]


def test_config_tells_the_interface_without_its_batch_dimension(client: Any) -> None:  # noqa: ANN401
    config = as_json(client, "get_model_config", "sums")
    config = config.get("config", config)
    assert int(config["max_batch_size"]) == 8
    assert [int(dim) for dim in config["input"][0]["dims"]] == [4]
    assert config["input"][0]["data_type"] == "TYPE_FP32"


def test_index_lists_the_model(client: Any) -> None:  # noqa: ANN401
    index = as_json(client, "get_model_repository_index")
    rows = index.get("models", []) if isinstance(index, dict) else index
    assert [(row["name"], row["version"], row["state"]) for row in rows] == [("sums", "1", "READY")]


def test_statistics_grow_by_what_was_asked(gateway: GatewayProcess, client: Any) -> None:  # noqa: ANN401
    def counts() -> list[int]:
        stats = as_json(client, "get_inference_statistics", "sums")["model_stats"][0]
        assert (stats["name"], stats["version"]) == ("sums", "1")
        parts = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        found = [int(stats["inference_stats"][part].get("count", 0)) for part in parts]
        return [int(stats["inference_count"]), *found]

    before = counts()
    for _ in range(3):
        assert not ask_plain(gateway, Question(shape=(2, 4), parameters={"tier": "quantized"})).refused
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [6, 3, 3, 3, 3, 3]


def test_loading_is_refused_on_the_public_listener(client: Any) -> None:  # noqa: ANN401
    with pytest.raises(Exception, match="administrative listener"):
        client.unload_model("sums")


def test_named_output_and_plain_json_output_are_honoured(gateway: GatewayProcess) -> None:
    tensor = triton_http.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32), binary_data=False)
    with triton_http.InferenceServerClient(gateway.http) as client:
        for binary in (True, False):
            wanted = triton_http.InferRequestedOutput("y", binary_data=binary)
            result = client.infer("sums", [tensor], outputs=[wanted], request_id="mine")
            assert result.as_numpy("y").tolist() == [[4.0]]
            assert result.get_response()["id"] == "mine"
            assert ("data" in result.get_output("y")) is not binary


def test_stream_answers_each_message_and_outlives_an_error(gateway: GatewayProcess) -> None:
    results: queue.Queue[tuple[Any, Any]] = queue.Queue()
    tensor = triton_grpc.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    with triton_grpc.InferenceServerClient(gateway.grpc) as client:
        client.start_stream(lambda result, error: results.put((result, error)))
        for model in ("sums", "absent", "sums"):
            client.async_stream_infer(model, [tensor])
        answers = [results.get(timeout=PATIENCE_S) for _ in range(3)]
        client.stop_stream()
    assert [error is None for _, error in answers] == [True, False, True]
    assert "absent" in answers[1][1].message()
    assert answers[2][0].as_numpy("y").tolist() == [[4.0]]


def test_health_service_speaks_for_the_server_and_for_models(gateway: GatewayProcess) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        serving = health_pb2.HealthCheckResponse.SERVING
        assert check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status == serving
        assert check(health_pb2.HealthCheckRequest(service="sums"), timeout=PATIENCE_S).status == serving
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="absent"), timeout=PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_answer_tells_its_story_in_headers_too(gateway: GatewayProcess) -> None:
    knobs = b'{"tier":"full","latency_budget_ms":%d}' % ROOMY_MS
    body = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,1,1,1]}],"parameters":%b}' % knobs
    status, headers, content = gateway.call("POST", "/v2/models/sums/infer", body, {"Content-Type": "application/json"})
    assert status == 200
    for name in ("variant", "tier", "reason"):
        assert headers[f"x-tiergate-{name}"] == content["parameters"][name]
    assert headers["x-tiergate-budget-met"] == "true"
    assert {part.split(";")[0].strip() for part in headers["server-timing"].split(",")} == {"queue", "compute", "total"}


def test_variants_are_listed_with_profile_and_state(gateway: GatewayProcess) -> None:
    status, _, content = gateway.call("GET", "/v2/models/sums/variants")
    assert status == 200
    variants = content["variants"]
    assert [(item["name"], item["tier"], item["state"]) for item in variants] == [
        ("full", "full", "ready"),
        ("quantized", "quantized", "ready"),
        ("distilled", "distilled", "ready"),
    ]


@pytest.mark.parametrize(
    ("query", "chosen", "reason"),
    [
        (f"budget_ms={ROOMY_MS}", "full", "within_budget"),
        (f"budget_ms={TIGHT_MS}", "quantized", "within_budget"),
        (f"budget_ms={ROOMY_MS}&hardware=mobile", "distilled", "hardware"),
        (f"budget_ms={TIGHT_MS}&min_accuracy=0.92", "full", "accuracy_floor"),
        ("variant=distilled", "distilled", "pinned"),
    ],
)
def test_route_explains_what_a_request_would_get(gateway: GatewayProcess, query: str, chosen: str, reason: str) -> None:
    status, _, content = gateway.call("GET", f"/v2/models/sums/route?{query}")
    assert (status, content["chosen"], content["reason"]) == (200, chosen, reason)
    assert {item["variant"] for item in content["candidates"]} == {"full", "quantized", "distilled"}


def test_artifact_is_handed_out_whole_in_parts_and_not_twice(gateway: GatewayProcess) -> None:
    path = "/v2/models/sums/variants/distilled/artifact"
    status, headers, content = gateway.call("GET", path)
    assert status == 200
    assert headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    status, headers, part = gateway.call("GET", path, headers={"Range": "bytes=10-19"})
    assert (status, part) == (206, content[10:20])
    assert headers["content-range"] == f"bytes 10-19/{len(content)}"
    status, headers, part = gateway.call("GET", path, headers={"Range": f"bytes={len(content)}-"})
    assert status == 416
    status, headers, part = gateway.call("GET", path)
    status, _, part = gateway.call("GET", path, headers={"If-None-Match": headers["etag"]})
    assert (status, part) == (304, b"")
    status, headers, part = gateway.call("HEAD", path)
    assert (status, headers["content-length"], part) == (200, str(len(content)), b"")
    status, headers, part = gateway.call("GET", "/v2/models/sums/artifact?hardware=mobile")
    assert (status, part) == (200, content)


def test_metrics_count_what_was_asked(gateway: GatewayProcess) -> None:
    def count(name: str) -> float:
        text = gateway.call("GET", "/metrics")[2].decode()
        values = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(name)]
        return sum(map(float, values))

    answered = 'tiergate_requests_total{model="sums",outcome="ok",protocol="grpc",variant="distilled"}'
    unknown = 'tiergate_requests_total{model="",outcome="not_found",protocol="http",variant=""}'
    before = count(answered), count(unknown)
    assert not ask_grpc(gateway, Question(parameters={"variant": "distilled"})).refused
    assert ask_plain(gateway, Question(model="absent")).refused
    assert (count(answered), count(unknown)) == (before[0] + 1, before[1] + 1)
    until(lambda: count("tiergate_inflight_requests") == count("tiergate_queue_depth") == 0)
