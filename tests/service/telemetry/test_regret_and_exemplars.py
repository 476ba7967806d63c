"""The accuracy that was given up, the CPU time that was spent, and the traces that buckets point to."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.domain.errors import DeadlineExceeded, InvalidRequest, Overloaded
from service.domain.inference import Answer, Reason
from service.domain.observer import RunReport
from service.telemetry.families import Families
from service.telemetry.metrics import Metrics
from service.telemetry.request_metrics import RequestMetrics
from service.telemetry.tracing import RequestTracing
from tests.builders import LADDER, make_model, make_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.telemetry.tracing import RequestTrace

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
RUN = RunReport("sums", "full", 1, 1, 0.0, 0.010, 0.0, 0.010, cpu_s=0.008)


def answer(expected: float = 0.92, best: float = 0.92, *, met: bool = True) -> Answer:
    return Answer(
        "full", "full", Reason.WITHIN_BUDGET, 0.01, 0.002, 0.010, 0.012, 0.1, met, expected, best_accuracy=best
    )


class NoSpans:
    """Takes traces and makes nothing of them."""

    def take(self, noted: RequestTrace, ended_s: float, error: BaseException | None) -> None:
        del noted, ended_s, error

    def close(self, timeout_s: float) -> None:
        del timeout_s


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics(budgets_s=[0.04])
    found.model_loaded(make_model())
    return found


@pytest.fixture
def regret(metrics: Metrics) -> Callable[[], dict[str, float | None]]:
    """Return the regret of the model ``sums`` by cause."""

    def read() -> dict[str, float | None]:
        causes = ("smaller", "late", "refused")
        return {
            cause: metrics.registry.get_sample_value("tiergate_regret_total", {"model": "sums", "cause": cause})
            for cause in causes
        }

    return read


def test_regret_exists_at_zero(regret: Callable[[], dict[str, float | None]]) -> None:
    assert regret() == {"smaller": 0.0, "late": 0.0, "refused": 0.0}


def test_the_best_that_the_budget_allowed_is_no_regret(
    metrics: Metrics, regret: Callable[[], dict[str, float | None]]
) -> None:
    metrics.request_finished(make_request(), answer(0.92, 0.92))
    metrics.request_finished(make_request(), answer(0.92, 0.86))  # predictions have fallen since it came
    metrics.request_finished(make_request(), answer(0.86, 0.0, met=False))  # nothing could have kept the budget
    metrics.request_refused(make_request(), InvalidRequest("x"), 0.0)
    assert regret() == {"smaller": 0.0, "late": 0.0, "refused": 0.0}


def test_regret_is_what_a_smaller_or_a_late_answer_gave_up(
    metrics: Metrics, regret: Callable[[], dict[str, float | None]]
) -> None:
    metrics.request_finished(make_request(), answer(0.86, 0.92))
    metrics.request_finished(make_request(), answer(0.92, 0.90, met=False))
    assert regret() == pytest.approx({"smaller": 0.06, "late": 0.90, "refused": 0.0})


def test_a_lost_request_gave_up_what_the_others_could_have_had(
    metrics: Metrics, regret: Callable[[], dict[str, float | None]]
) -> None:
    metrics.request_refused(make_request(), Overloaded("x", 1.0), 0.0)
    assert regret()["refused"] == pytest.approx(LADDER[0].accuracy)
    for _ in range(3):
        metrics.request_finished(make_request(), answer(0.52, 0.52))
    metrics.request_refused(make_request(), DeadlineExceeded("x"), 0.0)
    assert regret()["refused"] == pytest.approx(0.92 + (0.92 + 3 * 0.52) / 4)


def test_the_cpu_time_of_failed_runs_is_spent_too(metrics: Metrics) -> None:
    metrics.run_finished(RUN)
    metrics.run_finished(replace(RUN, failed=True, cpu_s=0.5))
    by = {"model": "sums", "variant": "full"}
    assert metrics.registry.get_sample_value("tiergate_variant_cpu_seconds_total", by) == pytest.approx(0.508)
    assert metrics.registry.get_sample_value("tiergate_compute_duration_seconds_count", by) == 1.0


def test_what_a_variant_needs_is_told_while_its_model_is_loaded(metrics: Metrics) -> None:
    full, needed = LADDER[0], {"model": "sums", "variant": "full", "kind": "needed"}
    assert metrics.registry.get_sample_value("tiergate_variant_memory_bytes", needed) == full.memory_bytes
    metrics.model_unloaded("sums")
    assert metrics.registry.get_sample_value("tiergate_variant_memory_bytes", needed) is None


def test_a_traced_request_is_the_example_of_its_bucket_in_openmetrics_only(metrics: Metrics) -> None:
    request, plain = make_request(), make_request()
    noted = RequestTracing(NoSpans(), 1.0).begin("http", None, None)
    assert noted is not None
    noted.decoded(request)
    metrics.request_finished(request, answer())
    metrics.request_finished(plain, replace(answer(), total_s=0.03))
    text, _ = asyncio.run(metrics.render(OPEN_METRICS))
    samples = [
        sample
        for family in text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call] # the library leaves it so
        for sample in family.samples
        if sample.exemplar is not None
    ]
    ((bucket,), exemplar) = samples, samples[0].exemplar
    assert exemplar is not None
    assert (bucket.name, bucket.labels["le"]) == ("tiergate_request_duration_seconds_bucket", "0.025")
    assert (exemplar.labels, exemplar.value) == ({"trace_id": noted.trace_id}, 0.012)
    assert noted.trace_id.encode() not in asyncio.run(metrics.render("text/plain"))[0]


def test_configured_budgets_are_edges_of_every_duration(metrics: Metrics) -> None:
    text, _ = asyncio.run(metrics.render(""))
    for name in ("request", "queue", "compute"):
        assert f'tiergate_{name}_duration_seconds_bucket{{le="0.04",model="sums",variant="full"}}' in text.decode()


def test_lost_requests_are_counted_once_each_while_another_thread_settles() -> None:
    families = Families()
    requests = RequestMetrics(families, [0.1])
    requests.create(make_model())
    is_over, interval_s = threading.Event(), sys.getswitchinterval()

    def settle() -> None:
        while not is_over.is_set():
            requests.settle()  # as the load of a model does

    settling = threading.Thread(target=settle)
    sys.setswitchinterval(1e-6)
    try:
        settling.start()
        for _ in range(20_000):
            requests.refused(make_request(), Overloaded("x", 1.0))
    finally:
        sys.setswitchinterval(interval_s)
        is_over.set()
        settling.join()
    found = families.registry.get_sample_value("tiergate_regret_total", {"model": "sums", "cause": "refused"})
    assert found == pytest.approx(20_000 * 0.92)
