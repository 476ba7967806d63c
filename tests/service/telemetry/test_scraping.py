"""Scrapes beside requests: in pieces, one at a time, and never older than the question."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.registry import Collector

from service.telemetry.metrics import Metrics
from service.telemetry.scraping import Scraping
from tests.builders import make_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Slow(Collector):
    """Two families, for each of which the clock goes on by a second; the second tells what ``value`` is by then."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.value = 1.0
        self.scrapes = 0

    def clock(self) -> float:
        return self.now_s

    def collect(self) -> Iterator[Metric]:
        self.scrapes += 1
        self.now_s += 1.0
        yield GaugeMetricFamily("first", "First.", value=self.value)
        self.now_s += 1.0
        yield GaugeMetricFamily("second", "Second.", value=self.value)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def scraping(slow: Slow) -> Scraping:
    registry = CollectorRegistry()
    registry.register(slow)
    slow.scrapes = 0  # registering asks for the names
    return Scraping(registry, slow.clock)


@pytest.mark.parametrize(("accept", "whole"), [("", generate_latest), (OPEN_METRICS, generate_open_metrics)])
async def test_pieces_make_what_the_library_writes_at_once(accept: str, whole: object) -> None:
    metrics = Metrics()
    metrics.model_loaded(make_model())
    stable = CollectorRegistry()
    stable.register(Kept([family for family in metrics.registry.collect() if family.name.startswith("tiergate_")]))
    assert callable(whole)
    assert (await Scraping(stable).render(accept))[0] == whole(stable)


class Kept(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


async def test_others_have_their_turn_between_families(slow: Slow, scraping: Scraping) -> None:
    scraped = asyncio.create_task(scraping.render(""))
    await asyncio.sleep(0)
    slow.value = 2.0
    body, _ = await scraped
    assert b"first 1.0" in body
    assert b"second 2.0" in body


async def test_who_asks_while_one_is_written_shares_the_next(slow: Slow, scraping: Scraping) -> None:
    first = asyncio.create_task(scraping.render(""))
    await asyncio.sleep(0)
    slow.value = 2.0
    late = await asyncio.gather(*(scraping.render("") for _ in range(50)))
    assert b"first 1.0" in (await first)[0]
    assert {b"first 2.0" in body for body, _ in late} == {True}
    assert slow.scrapes == 2


async def test_forms_are_not_mixed_up(slow: Slow, scraping: Scraping) -> None:
    (text, plain), (openly, typed) = await asyncio.gather(scraping.render(""), scraping.render(OPEN_METRICS))
    assert (plain.split(";")[0], typed.split(";")[0]) == ("text/plain", "application/openmetrics-text")
    assert (text.endswith(b"# EOF\n"), openly.endswith(b"# EOF\n"), openly.count(b"# EOF")) == (False, True, 1)
    assert slow.scrapes == 2


async def test_a_scrape_that_is_given_up_holds_nobody_up(scraping: Scraping) -> None:
    given_up = asyncio.create_task(scraping.render(""))
    waiting = asyncio.create_task(scraping.render(""))
    await asyncio.sleep(0)
    given_up.cancel()
    assert b"second 1.0" in (await waiting)[0]


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=abc", "text/plain; version=0.x"])
async def test_a_version_that_is_no_number_gets_plain_text(scraping: Scraping, accept: str) -> None:
    body, content_type = await scraping.render(accept)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"second 1.0" in body
