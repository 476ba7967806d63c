"""The servers of remote variants as Prometheus sees them: read when it is scraped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from service.domain.endpoints import EndpointState, RemoteState

_LABELS: Final = ("model", "variant", "endpoint")


class EndpointGauges(Collector):
    """Who is up, who is ejected, the calls under way, what became of them, how many were repeated; and their file.

    Endpoints are those of the remotes file, and so bounded. Counts begin anew where a model is loaded again with
    another file of the variant.
    """

    def __init__(
        self,
        endpoints: Callable[[], Sequence[EndpointState]],
        remotes: Callable[[], Sequence[RemoteState]],
        is_file_refused: Callable[[], bool],
    ) -> None:
        """Keep what gives the states; ``reloads`` are remotes files by what became of them, for who hears of them."""
        self._endpoints = endpoints
        self._remotes = remotes
        self._is_file_refused = is_file_refused
        self.reloads = {"applied": 0, "refused": 0}

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
        yield from (up, ejected, inflight, calls, *self._variants(), *self._file())

    def _variants(self) -> Iterable[Metric]:
        repeated = CounterMetricFamily("tiergate_remote_retries", "Calls that were repeated.", None, _LABELS[:2])
        refused = CounterMetricFamily(
            "tiergate_remote_retries_refused",
            "Calls that were not repeated: the retry budget was spent.",
            None,
            _LABELS[:2],
        )
        panic = GaugeMetricFamily(
            "tiergate_remote_panic",
            "1 where so many servers are ejected that ejections do not count.",
            None,
            _LABELS[:2],
        )
        for state in self._remotes():
            labels = (state.model, state.variant)
            repeated.add_metric(labels, state.retries)
            refused.add_metric(labels, state.retries_refused)
            panic.add_metric(labels, float(state.is_panicking))
        return repeated, refused, panic

    def _file(self) -> Iterable[Metric]:
        reloads = CounterMetricFamily(
            "tiergate_remotes_reloads", "Remotes files that were to be taken.", None, ("outcome",)
        )
        for outcome, count in self.reloads.items():
            reloads.add_metric((outcome,), count)
        text = "1 while the remotes file cannot be taken, and says other than is in force."
        return reloads, GaugeMetricFamily("tiergate_remotes_file_refused", text, float(self._is_file_refused()))
