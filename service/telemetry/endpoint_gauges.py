"""The servers of remote variants as Prometheus sees them: read when it is scraped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from service.domain.endpoints import EndpointState

_LABELS: Final = ("model", "variant", "endpoint")


class EndpointGauges(Collector):
    """Who is up, who is ejected, the calls under way, what became of them, and how many were repeated.

    Endpoints are those of the remotes file, and so bounded. Counts begin anew where a model is loaded again with
    another file of the variant.
    """

    def __init__(
        self,
        endpoints: Callable[[], Sequence[EndpointState]],
        retries: Callable[[], Mapping[tuple[str, str], int]],
    ) -> None:
        """Keep what gives the states, and the repeated calls by model and variant."""
        self._endpoints = endpoints
        self._retries = retries

    def collect(self) -> Iterable[Metric]:
        """Return the families as things stand."""
        up = GaugeMetricFamily("tiergate_endpoint_up", "1 where the server can be called.", None, _LABELS)
        ejected = GaugeMetricFamily("tiergate_endpoint_ejected", "1 where its failures take it out.", None, _LABELS)
        inflight = GaugeMetricFamily("tiergate_endpoint_inflight_calls", "Calls under way.", None, _LABELS)
        calls = CounterMetricFamily("tiergate_endpoint_calls", "Calls that ended.", None, (*_LABELS, "outcome"))
        for state in self._endpoints():
            labels = (state.model, state.variant, state.endpoint)
            up.add_metric(labels, float(state.is_up))
            ejected.add_metric(labels, float(state.is_ejected))
            inflight.add_metric(labels, state.inflight)
            for outcome, count in state.calls.items():
                calls.add_metric((*labels, outcome), count)
        repeated = CounterMetricFamily("tiergate_remote_retries", "Calls that were repeated.", None, _LABELS[:2])
        for pair, count in self._retries().items():
            repeated.add_metric(pair, count)
        yield from (up, ejected, inflight, calls, repeated)
