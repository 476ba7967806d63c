"""Counting for the hot path must say exactly what prometheus_client's own metrics would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from service.telemetry.tallies import CountFamily, HistogramFamily

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

EDGES = (0.001, 0.25, 1.0, 2.5)
ACCEPTS = ("text/plain", "application/openmetrics-text; version=1.0.0")


@pytest.fixture(autouse=True, scope="module")
def _no_created() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library leaves it unannotated


def exposed(collector: Collector | None, registry: CollectorRegistry, accept: str) -> bytes:
    if collector is not None:
        registry.register(collector)
    encode, _ = choose_encoder(accept)
    exposition: bytes = encode(registry)
    return exposition


@given(st.lists(st.floats(0.0, 4.0) | st.sampled_from(EDGES)))
def test_histograms_are_exposed_as_the_library_does(values: list[float]) -> None:
    theirs_registry, ours_registry = CollectorRegistry(), CollectorRegistry()
    theirs = Histogram("waits_seconds", "Waits.", ("model",), registry=theirs_registry, buckets=EDGES).labels("m")
    family = HistogramFamily("waits_seconds", "Waits.", ("model",), EDGES)
    ours = family.labels("m")
    for value in values:
        theirs.observe(value)
        ours.observe(np.array([value]))
    for accept in ACCEPTS:
        assert exposed(family, ours_registry, accept) == exposed(None, theirs_registry, accept)
        ours_registry.unregister(family)


@pytest.mark.parametrize("accept", ACCEPTS)
def test_counters_are_exposed_as_the_library_does(accept: str) -> None:
    theirs_registry, ours_registry = CollectorRegistry(), CollectorRegistry()
    theirs = Counter("answers", "Answers.", ("model", "kind"), registry=theirs_registry)
    ours = CountFamily("answers", "Answers.", ("model", "kind"))
    for labels, count in ((("m", "ok"), 3), (('quo"te', "new\nline"), 1), (("m", "none"), 0)):
        theirs.labels(*labels).inc(count)
        ours.labels(*labels).value += count
    assert exposed(ours, ours_registry, accept) == exposed(None, theirs_registry, accept)


def test_a_label_set_is_made_once() -> None:
    family = CountFamily("answers", "Answers.", ("model",))
    family.labels("m").value += 2
    assert family.labels("m").value == 2
