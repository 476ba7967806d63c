"""What the HTTP side says about the server and its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.service.api.conftest import ask, content

if TYPE_CHECKING:
    from tests.service.api.conftest import Caller, StubPlane


async def test_health_says_live_and_ready(caller: Caller, plane: StubPlane) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        answer = await ask(caller, "GET", path)
        assert (answer.status, content(answer)) == (200, {"live": True, "ready": True})
    plane.ready = False
    assert (await ask(caller, "GET", "/v2/health/live")).status == 200
    not_ready = await ask(caller, "GET", "/v2/health/ready")
    assert (not_ready.status, content(not_ready)) == (503, {"live": True, "ready": False})
    model = await ask(caller, "GET", "/v2/models/digits/ready")
    assert (model.status, content(model)) == (503, {"name": "digits", "ready": False})


async def test_config_leaves_the_batch_out_and_metadata_has_it(caller: Caller) -> None:
    config = content(await ask(caller, "GET", "/v2/models/digits/config"))
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [4]}]
    assert (config["platform"], config["backend"], config["max_batch_size"]) == ("onnxruntime_onnx", "onnxruntime", 8)
    metadata = content(await ask(caller, "GET", "/v2/models/digits/versions/1"))
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["versions"] == ["1"]


async def test_statistics_have_every_part_clients_read(caller: Caller) -> None:
    for path in ("/v2/models/digits/stats", "/v2/models/stats", "/v2/models/digits/versions/1/stats"):
        model = content(await ask(caller, "GET", path))["model_stats"][0]
        parts = [
            "success",
            "fail",
            "queue",
            "compute_input",
            "compute_infer",
            "compute_output",
            "cache_hit",
            "cache_miss",
        ]
        assert list(model["inference_stats"]) == parts
        assert model["inference_stats"]["queue"] == {"count": 3, "ns": 3000}
        assert (model["name"], model["version"], model["batch_stats"][0]["batch_size"]) == ("digits", "1", 2)


async def test_index_lists_models_and_takes_ready(caller: Caller) -> None:
    assert len(content(await ask(caller, "POST", "/v2/repository/index"))) == 2
    ready = content(await ask(caller, "POST", "/v2/repository/index", body=b'{"ready": true}'))
    assert ready == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]
    assert content(await ask(caller, "GET", "/v2/models")) == {"models": ["digits", "broken"]}
    assert (await ask(caller, "POST", "/v2/repository/index", body=b"{")).status == 400


async def test_variants_have_profile_and_state(caller: Caller) -> None:
    variants = content(await ask(caller, "GET", "/v2/models/digits/variants"))["variants"]
    assert [variant["name"] for variant in variants] == ["full", "small"]
    assert variants[0]["profile"] == [{"batch_size": 1, "p50_ms": 10.0, "p95_ms": 12.0, "p99_ms": 20.0}]


async def test_route_explains_without_running(caller: Caller, plane: StubPlane) -> None:
    route = content(await ask(caller, "GET", "/v2/models/digits/route?budget_ms=12.5&hardware=phone&min_accuracy=0.5"))
    assert (route["chosen"], route["budget_ms"], route["hardware_class"]) == ("small", 12.5, "phone")
    assert plane.requests == []


@pytest.mark.parametrize("query", ["budget_ms=0", "budget=5", "hardware=%ff", "&".join(["tier=a"] * 17), "variant=A"])
async def test_route_refuses_a_malformed_query(caller: Caller, query: str) -> None:
    assert (await ask(caller, "GET", f"/v2/models/digits/route?{query}")).status == 400
