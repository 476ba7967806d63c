"""A memory budget smaller than the ladder, over real sockets: every request is answered, and the budget holds."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import ModelPlan, VariantPlan, write_repository
from tests.integration.clients import Question, ask_grpc, ask_plain
from tests.integration.gateway_process import running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.clients import Reply
    from tests.integration.gateway_process import GatewayProcess

MIB = 2**20
SCALES = {"full": 1.0, "quantized": 2.0, "distilled": 3.0}
LADDER = ModelPlan(
    variants=(
        VariantPlan("full", "full", 0.95, 0.0005, scale=1.0, memory_bytes=6 * MIB),
        VariantPlan("quantized", "quantized", 0.94, 0.0003, scale=2.0, memory_bytes=2 * MIB),
        VariantPlan("distilled", "distilled", 0.86, 0.0001, scale=3.0, memory_bytes=1 * MIB),
    )
)
KNOBS: tuple[dict[str, Any], ...] = (
    {},
    {"latency_budget_ms": 5.0},
    *({"variant": name} for name in SCALES),
    {"min_accuracy": 0.945},
)


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway that can hold any two variants but the two largest."""
    root = write_repository(tmp_path / "repository", (LADDER,))
    with running_gateway(root, "--memory-budget-mb", "7.5") as running:
        yield running


def total(gateway: GatewayProcess, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    status, _, text = gateway.call("GET", "/metrics")
    assert status == 200
    families = text_string_to_metric_families(text.decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def loaded_bytes(gateway: GatewayProcess) -> float:
    """Return the memory that loaded variants take."""
    return total(gateway, "tiergate_variant_memory_bytes", kind="loaded")


def states(gateway: GatewayProcess) -> dict[str, str]:
    """Return the state of each variant."""
    _, _, found = gateway.call("GET", "/v2/models/sums/variants")
    return {item["name"]: item["state"] for item in found["variants"]}


def test_evictions_are_visible_and_undone_on_demand(tight: GatewayProcess) -> None:
    assert states(tight) == {"full": "ready", "quantized": "evicted", "distilled": "ready"}
    assert loaded_bytes(tight) == 7 * MIB
    _, _, index = tight.call("POST", "/v2/repository/index", b"{}")
    assert index[0]["reason"] == "variant quantized: evicted: loaded when a request needs it"
    assert ask_plain(tight, Question(parameters={"variant": "quantized"})).sums == (8.0,)
    assert states(tight) == {"full": "evicted", "quantized": "ready", "distilled": "ready"}
    assert loaded_bytes(tight) == 3 * MIB
    assert total(tight, "tiergate_variant_evictions_total") == 1.0


def test_no_request_fails_while_variants_come_and_go(tight: GatewayProcess) -> None:
    chance = random.Random(3)  # noqa: S311 - a repeatable mix, no secret
    asked = [(chance.choice((ask_plain, ask_plain, ask_plain, ask_grpc)), chance.choice(KNOBS)) for _ in range(200)]
    memory: list[float] = []

    def ask(number: int) -> Reply:
        if number % 10 == 0:
            memory.append(loaded_bytes(tight))
        how, knobs = asked[number]
        return how(tight, Question(parameters=knobs))

    with ThreadPoolExecutor(200) as pool:
        replies = list(pool.map(ask, range(len(asked))))
    assert [reply for reply in replies if reply.refused] == []
    for (_, knobs), reply in zip(asked, replies, strict=True):
        assert knobs.get("variant") in (None, reply.answer["variant"])
        assert reply.sums == (4 * SCALES[reply.answer["variant"]],)
    assert {reply.answer["variant"] for reply in replies} == set(SCALES)
    assert max(memory) <= 7.5 * MIB
    assert total(tight, "tiergate_variant_evictions_total") >= 2.0
    assert total(tight, "tiergate_requests_total") == 200.0
