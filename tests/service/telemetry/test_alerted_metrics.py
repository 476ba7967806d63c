"""Metrics that alerts read: claims that were exceeded, and the memory budget."""

from __future__ import annotations

import pytest

from service.domain.inference import Answer, Reason
from service.telemetry.metrics import Metrics
from tests.builders import make_model, make_request


def answer(total_s: float, claimed_s: float) -> Answer:
    return Answer(
        "full", "full", Reason.WITHIN_BUDGET, 0.01, 0.0, total_s, total_s, 0.1, True, 0.92, claimed_s=claimed_s
    )


@pytest.mark.parametrize(
    ("total_s", "claimed_s", "count"),
    [(0.013, 0.012, 1.0), (0.012, 0.012, 0.0), (0.013, 0.0, 0.0)],
    ids=["later than claimed", "as claimed", "nothing claimed"],
)
def test_answers_later_than_the_p99_that_they_carry_are_counted(total_s: float, claimed_s: float, count: float) -> None:
    metrics = Metrics()
    metrics.model_loaded(make_model())
    labels = {"model": "sums", "variant": "full"}
    assert metrics.registry.get_sample_value("tiergate_p99_claim_exceeded_total", labels) == 0.0
    metrics.request_finished(make_request(), answer(total_s, claimed_s))
    assert metrics.registry.get_sample_value("tiergate_p99_claim_exceeded_total", labels) == count


def test_memory_budget_is_told_only_where_there_is_one() -> None:
    metrics = Metrics()
    assert metrics.registry.get_sample_value("tiergate_memory_budget_bytes") is None
    metrics.memory_limited(2**20)
    assert metrics.registry.get_sample_value("tiergate_memory_budget_bytes") == 2**20
