from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.domain.errors import (
    BackendFailed,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    PayloadTooLarge,
    RemoteBackendFailed,
    UnsupportedMedia,
    VariantNotFound,
)
from service.domain.inference import Answer, Criticality, Reason
from service.domain.observer import RunReport
from service.telemetry.metrics import Metrics, outcome_of
from tests.builders import LADDER, make_model, make_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

REQUEST = make_request()
RUN = RunReport("sums", "full", 3, 2, 0.001, 0.010, 0.001, predicted_s=0.008, decision_s=1e-5)
PROMTOOL = shutil.which("promtool")


def answer(variant: str = "full", *, budget_met: bool = True, reason: Reason = Reason.WITHIN_BUDGET) -> Answer:
    return Answer(variant, variant, reason, 0.01, 0.002, 0.010, 0.012, 0.1, budget_met, 0.92)


def labels_of(**labels: str) -> dict[str, str]:
    return {"model": "sums", **labels}


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics(budgets_s=[0.04])
    found.model_loaded(make_model())
    return found


@pytest.fixture
def value(metrics: Metrics) -> Callable[..., float | None]:
    """Return the value of a sample of the model ``sums``, ``None`` where the label set does not exist."""

    def read(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"tiergate_{name}", labels_of(**labels))

    return read


def test_label_sets_exist_at_zero_when_a_model_is_loaded(value: Callable[..., float | None]) -> None:
    for variant in LADDER:
        by = {"variant": variant.name}
        assert value("requests_total", protocol="grpc", outcome="ok", **by) == 0.0
        assert value("request_duration_seconds_count", **by) == 0.0
        assert value("queue_duration_seconds_count", **by) == 0.0
        assert value("compute_duration_seconds_count", **by) == 0.0
        assert value("batch_size_count", **by) == 0.0
        assert value("predicted_over_actual_ratio_count", **by) == 0.0
        assert value("budget_met_total", **by) == value("budget_missed_total", **by) == 0.0
        assert value("variant_failures_total", **by) == 0.0
        assert {value("routing_decisions_total", reason=reason.value, **by) for reason in Reason} == {0.0}


@pytest.mark.parametrize(
    "outcome", ["invalid", "not_found", "not_ready", "overloaded", "deadline", "failed", "cancelled"]
)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_outcome_exists_at_zero(value: Callable[..., float | None], protocol: str, outcome: str) -> None:
    assert value("requests_total", variant="", protocol=protocol, outcome=outcome) == 0.0


@pytest.mark.parametrize("criticality", ["critical", "normal", "sheddable"])
@pytest.mark.parametrize("reason", ["queue_full", "displaced", "overloaded"])
def test_every_way_to_be_shed_exists_at_zero(value: Callable[..., float | None], criticality: str, reason: str) -> None:
    assert value("shed_total", criticality=criticality, reason=reason) == 0.0


def test_a_variants_facts_are_exposed(value: Callable[..., float | None]) -> None:
    full = LADDER[0]
    assert value("variant_info", variant="full", tier="full", version="1", digest=full.digest) == 1.0


def test_a_variant_takes_memory_while_it_is_held(metrics: Metrics, value: Callable[..., float | None]) -> None:
    full = LADDER[0]
    memory = {"name": "variant_memory_bytes", "variant": "full", "kind": "loaded"}
    assert value(**memory) == 0.0
    metrics.variant_held("sums", full, "model")
    metrics.variant_held("sums", full, "demand")
    assert value(**memory) == full.memory_bytes
    metrics.variant_evicted("sums", "full")
    assert value(**memory) == 0.0
    assert [
        value("variant_loads_total", variant="full", cause=cause) for cause in ("model", "demand", "swap", "room")
    ] == [
        1.0,
        1.0,
        0.0,
        0.0,
    ]
    assert value("variant_evictions_total", variant="full") == 1.0


@pytest.mark.parametrize("moment", range(40))
def test_memory_is_read_as_of_one_moment(metrics: Metrics, moment: int) -> None:
    held, coming = LADDER[:2]
    metrics.variant_held("sums", held, "model")
    calls = iter(range(10_000))

    def swap(_frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and next(calls) == moment:
            metrics.variant_evicted("sums", held.name)
            metrics.variant_held("sums", coming, "swap")

    read = metrics.registry.restricted_registry(["tiergate_variant_memory_bytes"])
    sys.setprofile(swap)  # another variant comes while it is read, whatever is called to read it
    try:
        (family,) = read.collect()
    finally:
        sys.setprofile(None)
    loaded = sum(sample.value for sample in family.samples if sample.labels["kind"] == "loaded")
    assert loaded in {held.memory_bytes, coming.memory_bytes}


def test_answers_are_counted_exactly(metrics: Metrics, value: Callable[..., float | None]) -> None:
    for met in (True, True, False):
        metrics.request_finished(REQUEST, answer(budget_met=met))
    metrics.request_finished(REQUEST, answer("quantized", reason=Reason.DOWNGRADED))
    assert value("requests_total", variant="full", protocol="http", outcome="ok") == 3.0
    assert value("budget_met_total", variant="full") == 2.0
    assert value("budget_missed_total", variant="full") == 1.0
    assert value("routing_decisions_total", variant="quantized", reason="downgraded") == 1.0
    assert value("request_duration_seconds_sum", variant="full") == pytest.approx(0.036)
    assert value("queue_duration_seconds_sum", variant="full") == pytest.approx(0.006)


def test_configured_budgets_are_bucket_edges(metrics: Metrics, value: Callable[..., float | None]) -> None:
    metrics.request_finished(REQUEST, answer())
    assert value("request_duration_seconds_bucket", variant="full", le="0.04") == 1.0
    assert value("request_duration_seconds_bucket", variant="full", le="0.01") == 0.0


def test_runs_are_counted_exactly(metrics: Metrics, value: Callable[..., float | None]) -> None:
    metrics.run_finished(RUN)
    assert value("compute_duration_seconds_sum", variant="full") == pytest.approx(0.010)
    assert value("batch_size_sum", variant="full") == 3.0
    assert value("predicted_over_actual_ratio_sum", variant="full") == pytest.approx(0.8)
    assert value("routing_decision_seconds_count") == 1.0


def test_a_failed_run_is_no_measurement(metrics: Metrics, value: Callable[..., float | None]) -> None:
    failed = RunReport("sums", "full", 1, 1, 0.0, 0.5, 0.0, predicted_s=0.01, failed=True)
    metrics.run_finished(failed)
    assert value("compute_duration_seconds_count", variant="full") == 0.0


def test_what_nobody_waited_for_is_counted_of_runs_that_fail_too(
    metrics: Metrics, value: Callable[..., float | None]
) -> None:
    assert value("unwanted_compute_seconds_total", variant="full") == 0.0
    metrics.run_finished(replace(RUN, unwanted_s=0.25))
    metrics.run_finished(replace(RUN, unwanted_s=0.5, failed=True))
    assert value("unwanted_compute_seconds_total", variant="full") == pytest.approx(0.75)
    assert value("compute_duration_seconds_sum", variant="full") == pytest.approx(0.010)


def test_shed_expired_and_failed_are_counted_exactly(metrics: Metrics, value: Callable[..., float | None]) -> None:
    metrics.request_shed("sums", Criticality.SHEDDABLE, "displaced")
    metrics.request_expired("sums", was_running=True)
    metrics.request_expired("sums", was_running=False)
    metrics.request_expired("sums", was_running=False)
    metrics.variant_failed("sums", "full", "broken")
    assert value("shed_total", criticality="sheddable", reason="displaced") == 1.0
    assert value("expired_total", state="running") == 1.0
    assert value("expired_total", state="waiting") == 2.0
    assert value("variant_failures_total", variant="full") == 1.0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InvalidRequest("x"), "invalid"),
        (UnsupportedMedia("x"), "invalid"),
        (PayloadTooLarge("x"), "invalid"),
        (ModelNotFound("x"), "not_found"),
        (VariantNotFound("x"), "not_found"),
        (ModelNotReady("x"), "not_ready"),
        (Draining("x"), "not_ready"),
        (Overloaded("x", 1.0), "overloaded"),
        (DeadlineExceeded("x"), "deadline"),
        (BackendFailed("x"), "failed"),
        (RemoteBackendFailed("x"), "failed"),
    ],
)
def test_refusals_are_counted_by_what_happened(
    metrics: Metrics, value: Callable[..., float | None], error: Exception, outcome: str
) -> None:
    metrics.request_refused(REQUEST, error, 0.1)
    assert outcome_of(error) == outcome
    assert value("requests_total", variant="", protocol="http", outcome=outcome) == 1.0


def test_requests_for_unknown_models_share_one_label_set(metrics: Metrics) -> None:
    for name in ("a", "b", "../etc/passwd"):
        metrics.request_refused(make_request(model=name), ModelNotFound("x"), 0.0)
    labels = {"model": "", "variant": "", "protocol": "http", "outcome": "not_found"}
    assert metrics.registry.get_sample_value("tiergate_requests_total", labels) == 3.0


def test_requests_that_could_not_be_decoded_are_counted_without_a_model(metrics: Metrics) -> None:
    for error, outcome in ((InvalidRequest("x"), "invalid"), (ModelNotFound("x"), "not_found")):
        metrics.request_malformed("grpc", error)
        labels = {"model": "", "variant": "", "protocol": "grpc", "outcome": outcome}
        assert metrics.registry.get_sample_value("tiergate_requests_total", labels) == 1.0


def test_a_reload_replaces_the_facts_and_keeps_the_counts(metrics: Metrics, value: Callable[..., float | None]) -> None:
    metrics.request_finished(REQUEST, answer())
    metrics.model_loaded(make_model(LADDER[1:]))
    full = LADDER[0]
    assert value("variant_info", variant="full", tier="full", version="1", digest=full.digest) is None
    assert value("requests_total", variant="full", protocol="http", outcome="ok") == 1.0


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Let threads change places so often that they meet within the microseconds that noting an answer takes."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("restless_threads")
def test_answers_are_counted_where_they_belong_while_a_model_is_loaded_again(
    metrics: Metrics, value: Callable[..., float | None]
) -> None:
    variants, loaded, rounds = [item.name for item in LADDER], threading.Event(), 0

    def load_again() -> None:
        for _ in range(150):
            metrics.model_loaded(make_model())
        loaded.set()

    loading = threading.Thread(target=load_again)
    loading.start()
    while not loaded.is_set():
        rounds += 1
        for variant in variants:
            metrics.request_finished(REQUEST, answer(variant))
    loading.join()
    assert [value("budget_met_total", variant=variant) for variant in variants] == [rounds] * len(LADDER)


def test_the_policy_in_force_is_the_only_one_shown(metrics: Metrics) -> None:
    metrics.policy.policy_loaded("old")
    metrics.policy.policy_loaded("new")
    assert metrics.registry.get_sample_value("tiergate_policy_info", {"digest": "new"}) == 1.0
    assert metrics.registry.get_sample_value("tiergate_policy_info", {"digest": "old"}) is None


def test_policies_are_counted_by_what_became_of_them(metrics: Metrics) -> None:
    def count(outcome: str) -> float | None:
        return metrics.registry.get_sample_value("tiergate_policy_reloads_total", {"outcome": outcome})

    assert (count("applied"), count("refused")) == (0.0, 0.0)
    metrics.policy_applied("new", ("default.weight: 1 -> 2",))
    metrics.policy_refused("why")
    metrics.policy_refused("why")
    assert (count("applied"), count("refused")) == (1.0, 2.0)
    assert metrics.registry.get_sample_value("tiergate_policy_info", {"digest": "new"}) == 1.0


def test_live_values_are_read_at_every_scrape(metrics: Metrics, value: Callable[..., float | None]) -> None:
    depths, inflight, busy_s = {"sums": 3, "stranger": 1}, [7], [0.0, 0.0]
    metrics.watch(lambda: depths, lambda: inflight[0], lambda: busy_s)
    assert value("queue_depth") == 3.0
    assert metrics.registry.get_sample_value("tiergate_queue_depth", {"model": "stranger"}) is None
    assert metrics.registry.get_sample_value("tiergate_inflight_requests") == 7.0
    assert metrics.registry.get_sample_value("tiergate_lane_busy_ratio", {"lane": "1"}) == 0.0
    depths.clear()
    inflight[0] = 0
    assert (value("queue_depth"), metrics.registry.get_sample_value("tiergate_inflight_requests")) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("accept", "content_type", "ending"),
    [
        ("", "text/plain", b"\n"),
        ("text/plain", "text/plain", b"\n"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", b"# EOF\n"),
    ],
)
def test_metrics_are_rendered_in_the_form_asked_for(
    metrics: Metrics, accept: str, content_type: str, ending: bytes
) -> None:
    body, given_type = asyncio.run(metrics.render(accept))
    assert given_type.startswith(content_type)
    assert body.endswith(ending)
    assert b"tiergate_requests_total{" in body


def test_what_the_door_has_not_told_is_told_before_a_scrape(metrics: Metrics) -> None:
    metrics.watch_door(lambda: metrics.turned_away("http", {Criticality.NORMAL: 3}))
    asyncio.run(metrics.render(""))
    labels = {"model": "", "variant": "", "protocol": "http", "outcome": "overloaded"}
    assert metrics.registry.get_sample_value("tiergate_requests_total", labels) == 3.0


def test_every_metric_carries_the_prefix_or_is_the_processs_own(metrics: Metrics) -> None:
    body, _ = asyncio.run(metrics.render(""))
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert all(name.startswith(("tiergate_", "process_", "python_")) for name in names)
    assert "process_resident_memory_bytes" in names


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; it comes with Prometheus")
def test_promtool_finds_nothing_to_say(metrics: Metrics) -> None:
    metrics.watch(dict, lambda: 0, lambda: [0.0])
    metrics.policy.policy_loaded("digest")
    metrics.request_finished(REQUEST, answer())
    metrics.run_finished(RUN)
    body, _ = asyncio.run(metrics.render(""))
    assert PROMTOOL is not None
    result = subprocess.run([PROMTOOL, "check", "metrics"], input=body, capture_output=True, check=False, timeout=30)
    assert (result.returncode, result.stdout.decode(), result.stderr.decode()) == (0, "", "")
