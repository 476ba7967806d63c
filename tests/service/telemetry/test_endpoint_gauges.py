from __future__ import annotations

from service.domain.endpoints import EndpointState, RemoteState
from service.telemetry.metrics import Metrics


async def test_servers_are_read_when_metrics_are_scraped() -> None:
    states: list[EndpointState] = []
    metrics = Metrics()
    metrics.watch_endpoints(lambda: states, lambda: [RemoteState("sums", "full", 3, 2, True)], lambda: True)
    metrics.remotes_applied("ab", ("sums",))
    for number, is_up in enumerate((True, False)):
        calls = {"answered": 5 + number, "silent": 0}
        states.append(EndpointState("sums", "full", f"grpc://s{number}:1", is_up, not is_up, number, calls))
    text = (await metrics.render("text/plain"))[0].decode()
    server = 'endpoint="grpc://s{}:1",model="sums",variant="full"'
    for line in (
        f"tiergate_endpoint_up{{{server.format(0)}}} 1.0",
        f"tiergate_endpoint_up{{{server.format(1)}}} 0.0",
        f"tiergate_endpoint_ejected{{{server.format(1)}}} 1.0",
        f"tiergate_endpoint_inflight_calls{{{server.format(1)}}} 1.0",
        'tiergate_remote_retries_total{model="sums",variant="full"} 3.0',
        'tiergate_remote_retries_refused_total{model="sums",variant="full"} 2.0',
        'tiergate_remote_panic{model="sums",variant="full"} 1.0',
        'tiergate_remotes_reloads_total{outcome="applied"} 1.0',
        'tiergate_remotes_reloads_total{outcome="refused"} 0.0',
        "tiergate_remotes_file_refused 1.0",
    ):
        assert line in text
    for outcome, count in (("answered", 6.0), ("silent", 0.0)):
        labels = f'endpoint="grpc://s1:1",model="sums",outcome="{outcome}",variant="full"'
        assert f"tiergate_endpoint_calls_total{{{labels}}} {count}" in text
