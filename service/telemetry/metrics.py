"""Every Prometheus metric of the service: one observer, which hands on to a part for each concern.

Label sets are bounded: models and variants come from loaded manifests (requests for unknown models count under an empty
model), outcomes and reasons from enumerations. Sets are created at zero when a model is loaded, so that a rate exists
before the first event. One process per instance: no multiprocess mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.telemetry.drift_gauges import DriftGauges
from service.telemetry.endpoint_gauges import EndpointGauges
from service.telemetry.families import Families
from service.telemetry.live_gauges import DroppedArrivals, LiveGauges
from service.telemetry.policy_metrics import PolicyMetrics
from service.telemetry.request_metrics import RequestMetrics, outcome_of
from service.telemetry.run_metrics import RunMetrics
from service.telemetry.scraping import Scraping
from service.telemetry.tls_metrics import TlsMetrics
from service.telemetry.variant_metrics import VariantMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from service.domain.departure import Departure
    from service.domain.endpoints import EndpointState, RemoteState
    from service.domain.inference import Answer, Criticality, InferenceRequest
    from service.domain.observer import RunReport
    from service.domain.variants import ModelInfo, Variant
    from service.domain.verdicts import ModelDrift

__all__ = ["Metrics", "outcome_of"]

_DURATIONS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """An observer that counts; ``budgets_s`` become bucket edges of the request duration."""

    def __init__(self, budgets_s: Iterable[float] = ()) -> None:
        """Define every metric in a registry of its own."""
        disable_created_metrics()  # type: ignore[no-untyped-call] # the library leaves it unannotated
        self._families = families = Families()
        self.registry = families.registry
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        edges_s = sorted({*_DURATIONS_S, *budgets_s})
        self._requests = RequestMetrics(families, edges_s)
        self._runs = RunMetrics(families, edges_s)
        self._variants = VariantMetrics(families)
        self.policy = PolicyMetrics(families)
        self._scraping = Scraping(families.registry)
        self._settle: Callable[[], None] = lambda: None
        self._endpoints: EndpointGauges | None = None

    def watch(
        self,
        depths: Callable[[], Mapping[str, int]],
        inflight: Callable[[], int],
        busy_s: Callable[[], Sequence[float]],
    ) -> None:
        """Read these at every scrape: queued requests by model, requests inside, busy seconds of each lane."""
        self.registry.register(LiveGauges(self._requests.known, depths, inflight, busy_s))

    def watch_door(self, settle: Callable[[], None]) -> None:
        """Call this before every scrape: it tells ``turned_away`` what was not told yet."""
        self._settle = settle

    def watch_drift(self, reports: Callable[[], Mapping[str, ModelDrift]]) -> None:
        """Read drift's reports, by model, at every scrape."""
        self.registry.register(DriftGauges(reports))

    def watch_endpoints(
        self,
        endpoints: Callable[[], Sequence[EndpointState]],
        remotes: Callable[[], Sequence[RemoteState]],
        is_file_refused: Callable[[], bool] = bool,
    ) -> None:
        """Read these at every scrape: the servers, the remote variants, and whether the remotes file is refused."""
        self._endpoints = EndpointGauges(endpoints, remotes, is_file_refused)
        self.registry.register(self._endpoints)

    def watch_tls(self) -> TlsMetrics:
        """Return what hears of certificates; call it once, where there is TLS."""
        return TlsMetrics(self._families)

    def watch_recording(self, dropped: Callable[[], int]) -> None:
        """Read how many arrivals were not recorded at every scrape; call it once, where they are recorded."""
        self.registry.register(DroppedArrivals(dropped))

    def memory_limited(self, budget_bytes: int) -> None:
        """Tell the budget that loaded variants have; call it once, where there is one."""
        self._families.gauge("memory_budget_bytes", "Memory that loaded variants may take", ()).set(budget_bytes)

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:
        """Count a policy that was put in force."""
        self.policy.policy_applied(digest, changes)

    def policy_refused(self, why: str) -> None:
        """Count a policy that was not taken."""
        self.policy.policy_refused(why)

    def remotes_applied(self, digest: str, models: tuple[str, ...]) -> None:  # noqa: ARG002
        """Count a remotes file that was put in force."""
        if self._endpoints is not None:
            self._endpoints.reloads["applied"] += 1

    def remotes_refused(self, why: str) -> None:  # noqa: ARG002
        """Count a remotes file that was not taken."""
        if self._endpoints is not None:
            self._endpoints.reloads["refused"] += 1

    def region_changed(self, model: str, departures: tuple[Departure, ...]) -> None:
        """Tell which figures have left the tuned region."""
        self.policy.region_changed(model, departures)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition for an Accept header, and its content type; on the event loop that serves."""
        self._settle()
        return await self._scraping.render(accept)

    def request_malformed(self, protocol: str, error: BaseException) -> None:
        """Count an inference request that could not be decoded, and so names no model."""
        self._requests.malformed(protocol, error)

    def turned_away(self, protocol: str, counts: Mapping[Criticality, int]) -> None:
        """Count inference requests that were refused before they were decoded, and so name no model."""
        self._requests.turned_away(protocol, counts)

    def model_loaded(self, model: ModelInfo) -> None:
        """Create the model's label sets at zero."""
        self._variants.forget(model.name)  # the version before a reload
        self._requests.create(model)
        self.policy.model_loaded(model)
        for variant in model.variants:
            self._runs.create(model.name, variant.name)
            self._variants.create(model, variant)

    def model_unloaded(self, model: str) -> None:
        """Say no more that it is served; its counters stay, as Prometheus wants them."""
        self._variants.forget(model)
        self.policy.model_unloaded(model)

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Count an answer."""
        self._requests.finished(request, answer)

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:  # noqa: ARG002
        """Count a request that got no answer."""
        self._requests.refused(request, error)

    def run_finished(self, report: RunReport) -> None:
        """Count a run."""
        self._runs.run_finished(report)

    def request_shed(self, model: str, criticality: Criticality, why: str) -> None:
        """Count a refusal for load."""
        self._requests.shed(model, criticality, why)

    def request_expired(self, model: str, *, was_running: bool) -> None:
        """Count a passed deadline."""
        self._requests.expired(model, was_running=was_running)

    def variant_failed(self, model: str, variant: str, why: str) -> None:  # noqa: ARG002
        """Count a failure."""
        self._variants.failed(model, variant)

    def lane_replaced(self, model: str, variant: str, stuck: int) -> None:  # noqa: ARG002
        """Count a run that hung."""
        self._runs.hung(model, variant)

    def variant_held(self, model: str, variant: Variant, cause: str) -> None:
        """Count a load, and what it takes."""
        self._variants.held(model, variant, cause)

    def variant_evicted(self, model: str, variant: str) -> None:
        """Count an eviction, and what it frees."""
        self._variants.evicted(model, variant)

    def variant_unproven(self, model: str, variant: str, treatment: str, why: str) -> None:  # noqa: ARG002
        """Tell what is done about a variant that may be wrong here."""
        self._variants.unproven(model, variant, treatment)
