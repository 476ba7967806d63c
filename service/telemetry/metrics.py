"""Every Prometheus metric of the service, in one place.

Label sets are bounded: models and variants come from loaded manifests (requests for unknown models count under an empty
model), outcomes and reasons from enumerations. Sets are created at zero when a model is loaded, so that a rate exists
before the first event. One process per instance: no multiprocess mode.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.domain.errors import (
    BackendFailed,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotReady,
    NotFound,
    NotSupported,
    Overloaded,
    PayloadTooLarge,
)
from service.domain.inference import Criticality, Reason
from service.telemetry.tallies import CountFamily, HistogramFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from service.domain.inference import Answer, InferenceRequest
    from service.domain.observer import RunReport
    from service.domain.variants import ModelInfo, Variant
    from service.telemetry.tallies import Count, Histogram

PROTOCOLS: Final = ("http", "grpc")
_OUTCOMES: Final[Mapping[type[BaseException], str]] = {
    InvalidRequest: "invalid",
    PayloadTooLarge: "invalid",
    NotSupported: "invalid",
    NotFound: "not_found",
    ModelNotReady: "not_ready",
    Overloaded: "overloaded",
    DeadlineExceeded: "deadline",
    BackendFailed: "failed",
}
_LOAD_CAUSES: Final = ("model", "demand", "swap", "room")
_SHED_REASONS: Final = ("queue_full", "displaced", "overloaded")
_DURATIONS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_DECISIONS_S: Final = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3)
_RATIOS: Final = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


def outcome_of(error: BaseException) -> str:
    """Return the ``outcome`` label of a request that got no answer; what nobody foresaw counts as failed."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return next((name for kind, name in _OUTCOMES.items() if isinstance(error, kind)), "failed")


@dataclass(frozen=True, slots=True)
class _Series:
    """One variant's time series, found once, because finding them by label costs more than counting."""

    answered: Mapping[str, Count]
    decisions: Mapping[Reason, Count]
    duration: Histogram
    queue: Histogram
    compute: Histogram
    rows: Histogram
    predicted: Histogram
    decision: Histogram
    met: Count
    missed: Count


class Metrics:
    """An observer that counts; ``budgets_s`` become bucket edges of the request duration."""

    def __init__(self, budgets_s: Iterable[float] = ()) -> None:
        """Define every metric in a registry of its own."""
        disable_created_metrics()  # type: ignore[no-untyped-call] # the library leaves it unannotated
        self.registry = CollectorRegistry(auto_describe=True)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        edges = sorted({*_DURATIONS_S, *budgets_s})
        by_variant = ("model", "variant")
        self._known: set[str] = set()
        self._series: dict[tuple[str, str], _Series] = {}
        self._running = threading.Lock()  # runs end on several lanes
        self._requests = self._tally("requests", "Requests by outcome", (*by_variant, "protocol", "outcome"))
        self._duration = self._histogram("request_duration_seconds", "From arrival to answer", by_variant, edges)
        self._queue = self._histogram("queue_duration_seconds", "Wait before the run", by_variant, edges)
        self._compute = self._histogram("compute_duration_seconds", "Run of a batch", by_variant, edges)
        self._decision = self._histogram("routing_decision_seconds", "Choosing a run", ("model",), _DECISIONS_S)
        self._decisions = self._tally("routing_decisions", "Why a variant answered", (*by_variant, "reason"))
        self._met = self._tally("budget_met", "Answers within their latency budget", by_variant)
        self._missed = self._tally("budget_missed", "Answers after their latency budget", by_variant)
        self._cascades = self._tally("cascade", "Answers of cascades, by how far they went", ("model", "outcome"))
        self._shed = self._counter("shed", "Requests refused for load", ("model", "criticality", "reason"))
        self._expired = self._counter("expired", "Requests whose hard deadline passed", ("model", "state"))
        self._rows = self._histogram("batch_size", "Rows computed together", by_variant, _ROWS)
        self._predicted = self._histogram(
            "predicted_over_actual_ratio", "Predicted compute time over real", by_variant, _RATIOS
        )
        self._failures = self._counter("variant_failures", "Variants that failed to load or to run", by_variant)
        self._memory = self._gauge("variant_memory_bytes", "Memory by the manifest", (*by_variant, "kind"))
        self._loads = self._counter("variant_loads", "Times that a variant came into memory", (*by_variant, "cause"))
        self._evictions = self._counter("variant_evictions", "Times that a variant made room for others", by_variant)
        self._info = self._gauge("variant_info", "What is served", (*by_variant, "tier", "version", "digest"))
        self._policy = self._gauge("policy_info", "The policy in force", ("digest",))
        self._reloads = self._counter("policy_reloads", "Policies that were to replace the one in force", ("outcome",))
        for outcome in ("applied", "refused"):
            self._reloads.labels(outcome)

    def watch(
        self,
        depths: Callable[[], Mapping[str, int]],
        inflight: Callable[[], int],
        busy_s: Callable[[], Sequence[float]],
    ) -> None:
        """Read these at every scrape: queued requests by model, requests inside, busy seconds of each lane."""
        self.registry.register(_LiveGauges(self._known, depths, inflight, busy_s))

    def policy_loaded(self, digest: str) -> None:
        """Tell which policy is in force."""
        self._policy.clear()
        self._policy.labels(digest).set(1)

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:  # noqa: ARG002
        """Count a policy that was put in force."""
        self.policy_loaded(digest)
        self._reloads.labels("applied").inc()

    def policy_refused(self, why: str) -> None:  # noqa: ARG002
        """Count a policy that was not taken."""
        self._reloads.labels("refused").inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition for an Accept header, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def request_malformed(self, protocol: str, error: BaseException) -> None:
        """Count an inference request that could not be decoded, and so names no model."""
        self._requests.labels("", "", protocol, outcome_of(error)).value += 1

    def model_loaded(self, model: ModelInfo) -> None:
        """Create the model's label sets at zero."""
        self._known.add(model.name)
        self._forget(model.name)  # the version before a reload
        for outcome in (*_OUTCOMES.values(), "cancelled"):
            for protocol in PROTOCOLS:
                self._requests.labels(model.name, "", protocol, outcome)
        for criticality in Criticality:
            for why in _SHED_REASONS:
                self._shed.labels(model.name, criticality.name.lower(), why)
        for state in ("waiting", "running"):
            self._expired.labels(model.name, state)
        self._decision.labels(model.name)
        for stage in ("sure", "escalated", "settled"):
            self._cascades.labels(model.name, stage)
        for variant in model.variants:
            self._create_variant(model, variant)

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Count an answer."""
        series = self._series[request.model, answer.variant]
        series.answered[request.protocol].value += 1
        series.decisions[answer.reason].value += 1
        series.duration.observe(answer.total_s)
        series.queue.observe(answer.queue_s)
        (series.met if answer.budget_met else series.missed).value += 1
        if answer.cascade:
            self._cascades.labels(request.model, answer.cascade).value += 1

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:  # noqa: ARG002
        """Count a request that got no answer."""
        model = request.model if request.model in self._known else ""
        self._requests.labels(model, "", request.protocol, outcome_of(error)).value += 1

    def run_finished(self, report: RunReport) -> None:
        """Count a run."""
        if report.failed:
            return
        series = self._series[report.model, report.variant]
        with self._running:
            series.compute.observe(report.compute_s)
            series.rows.observe(report.rows)
            series.predicted.observe(report.predicted_s / max(report.compute_s, 1e-9))
            series.decision.observe(report.decision_s)

    def request_shed(self, model: str, criticality: Criticality, why: str) -> None:
        """Count a refusal for load."""
        self._shed.labels(model, criticality.name.lower(), why).inc()

    def request_expired(self, model: str, *, was_running: bool) -> None:
        """Count a passed deadline."""
        self._expired.labels(model, "running" if was_running else "waiting").inc()

    def variant_failed(self, model: str, variant: str, why: str) -> None:  # noqa: ARG002
        """Count a failure."""
        self._failures.labels(model, variant).inc()

    def variant_held(self, model: str, variant: Variant, cause: str) -> None:
        """Count a load, and what it takes."""
        self._loads.labels(model, variant.name, cause).inc()
        self._memory.labels(model, variant.name, "loaded").set(variant.memory_bytes)

    def variant_evicted(self, model: str, variant: str) -> None:
        """Count an eviction, and what it frees."""
        self._evictions.labels(model, variant).inc()
        self._memory.labels(model, variant, "loaded").set(0)

    def model_unloaded(self, model: str) -> None:
        """Say no more that it is served; its counters stay, as Prometheus wants them."""
        self._forget(model)

    def _forget(self, model: str) -> None:
        for gauge in (self._info, self._memory):
            gauge.remove_by_labels({"model": model})

    def _create_variant(self, model: ModelInfo, variant: Variant) -> None:
        labels = (model.name, variant.name)
        self._failures.labels(*labels)
        self._evictions.labels(*labels)
        for cause in _LOAD_CAUSES:
            self._loads.labels(*labels, cause)
        self._series[labels] = _Series(
            answered={protocol: self._requests.labels(*labels, protocol, "ok") for protocol in PROTOCOLS},
            decisions={reason: self._decisions.labels(*labels, reason.value) for reason in Reason},
            duration=self._duration.labels(*labels),
            queue=self._queue.labels(*labels),
            compute=self._compute.labels(*labels),
            rows=self._rows.labels(*labels),
            predicted=self._predicted.labels(*labels),
            decision=self._decision.labels(model.name),
            met=self._met.labels(*labels),
            missed=self._missed.labels(*labels),
        )
        self._memory.labels(*labels, "loaded").set(0)
        self._info.labels(*labels, variant.tier, model.version, variant.digest).set(1)

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"tiergate_{name}", f"{help_text}.", labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(f"tiergate_{name}", f"{help_text}.", labels, registry=self.registry)

    def _tally(self, name: str, help_text: str, labels: tuple[str, ...]) -> CountFamily:
        family = CountFamily(f"tiergate_{name}", f"{help_text}.", labels)
        self.registry.register(family)
        return family

    def _histogram(self, name: str, help_text: str, labels: tuple[str, ...], edges: Sequence[float]) -> HistogramFamily:
        family = HistogramFamily(f"tiergate_{name}", f"{help_text}.", labels, edges)
        self.registry.register(family)
        return family


class _LiveGauges(Collector):
    """Values that are read when Prometheus asks, not kept up to date in between."""

    def __init__(
        self,
        known: set[str],
        depths: Callable[[], Mapping[str, int]],
        inflight: Callable[[], int],
        busy_s: Callable[[], Sequence[float]],
    ) -> None:
        self._known = known
        self._depths = depths
        self._inflight = inflight
        self._busy_s = busy_s
        self._last_s = time.monotonic()
        self._last_busy_s = list(busy_s())
        self._ratios = [0.0] * len(self._last_busy_s)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        depths = self._depths()
        queued = GaugeMetricFamily("tiergate_queue_depth", "Requests waiting for a lane.", labels=("model",))
        for model in sorted(self._known):
            queued.add_metric((model,), depths.get(model, 0))
        yield queued
        yield GaugeMetricFamily("tiergate_inflight_requests", "Requests inside.", value=self._inflight())
        busy = GaugeMetricFamily(
            "tiergate_lane_busy_ratio",
            "Share of the time since the last scrape that a lane computed.",
            labels=("lane",),
        )
        for lane, ratio in enumerate(self._busy_ratios()):
            busy.add_metric((str(lane),), ratio)
        yield busy

    def _busy_ratios(self) -> Sequence[float]:
        now_s, busy_s = time.monotonic(), list(self._busy_s())
        elapsed_s = now_s - self._last_s
        if elapsed_s >= 0.1:  # noqa: PLR2004 - two scrapers at once must not see noise
            pairs = zip(busy_s, self._last_busy_s, strict=True)
            self._ratios = [min(1.0, max(0.0, (now - last) / elapsed_s)) for now, last in pairs]
            self._last_s, self._last_busy_s = now_s, busy_s
        return self._ratios
