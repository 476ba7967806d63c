"""What is told of policies: states that are read, not only events."""

from __future__ import annotations

from service.domain.departure import Departure
from service.telemetry.metrics import Metrics
from tests.builders import make_model

RATE = {"model": "sums", "figure": "rate"}
LEFT = (Departure("rate", 9.0, 1.0, 2.0),)


def region(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("tiergate_policy_region_left", RATE)


def test_a_refused_file_is_a_state_that_ends() -> None:
    metrics, refused = Metrics(), [True]
    assert metrics.registry.get_sample_value("tiergate_policy_file_refused") == 0.0
    metrics.policy.watch(lambda: refused[0])
    assert metrics.registry.get_sample_value("tiergate_policy_file_refused") == 1.0
    refused[0] = False
    assert metrics.registry.get_sample_value("tiergate_policy_file_refused") == 0.0


def test_a_reload_does_not_bring_traffic_back_into_its_region() -> None:
    metrics = Metrics()
    metrics.model_loaded(make_model())
    assert region(metrics) == 0.0
    metrics.region_changed("sums", LEFT)
    metrics.model_loaded(make_model())
    assert region(metrics) == 1.0


def test_nothing_is_told_of_the_region_of_a_model_that_is_not_served() -> None:
    metrics = Metrics()
    metrics.model_loaded(make_model())
    metrics.region_changed("sums", LEFT)
    metrics.model_unloaded("sums")
    assert region(metrics) is None
    metrics.model_loaded(make_model())
    assert region(metrics) == 0.0


def test_requests_without_a_model_are_counted_from_zero() -> None:
    value = Metrics().registry.get_sample_value
    for protocol in ("http", "grpc"):
        labels = {"model": "", "variant": "", "protocol": protocol, "outcome": "overloaded"}
        assert value("tiergate_requests_total", labels) == 0.0
    shed = {"model": "", "criticality": "sheddable", "reason": "door"}
    assert value("tiergate_shed_total", shed) == 0.0
