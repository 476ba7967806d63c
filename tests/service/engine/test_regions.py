"""The regions of the policy in force, held against requests as the engine reports them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import Overloaded
from service.domain.inference import Answer, Reason
from service.domain.observer import SilentObserver
from service.domain.policy_file import PolicyFile, Provenance, TunedRegion
from service.engine.regions import TunedRegions
from tests.builders import make_model, make_request

if TYPE_CHECKING:
    from service.domain.departure import Departure

ANSWER = Answer("full", "full", Reason.WITHIN_BUDGET, 0.01, 0.0, 0.01, 0.02, 0.1, budget_met=True, expected_accuracy=1)
REGION = TunedRegion(window_s=10.0, rate_hz=(8.0, 12.0), peak_hz=(1.0, 100.0), budget_ms=(50.0, 200.0))


@dataclass
class Heard(SilentObserver):
    """Remembers what left, and what came back, by model."""

    told: list[tuple[str, list[str]]] = field(default_factory=list)

    def region_changed(self, model: str, departures: tuple[Departure, ...]) -> None:
        self.told.append((model, [item.figure for item in departures]))


class Site:
    """Regions with a clock and a policy that a test can change."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.heard = Heard()
        self.policy = tuned(REGION)
        self.regions = TunedRegions(lambda: self.now_s, lambda: self.policy, self.heard)
        self.regions.follow()

    def ask(self, rate_hz: float, windows: int, answer: Answer = ANSWER) -> None:
        """Send requests at an even rate for whole windows."""
        began_s, count = self.now_s, round(rate_hz * REGION.window_s * windows)
        for number in range(count):
            self.now_s = began_s + number / rate_hz
            self.regions.request_finished(make_request(), answer)
        self.now_s = began_s + REGION.window_s * windows


def tuned(region: TunedRegion | None) -> PolicyFile:
    regions = {} if region is None else {"sums": region}
    return PolicyFile(provenance=Provenance(written_by="test", regions=regions))


@pytest.fixture
def site() -> Site:
    return Site()


def test_traffic_that_leaves_and_comes_back_is_told_once_each(site: Site) -> None:
    site.ask(10.0, 4)
    assert site.heard.told == []
    site.ask(40.0, 5)
    assert site.heard.told == [("sums", ["rate"])]
    site.ask(10.0, 4)
    assert site.heard.told == [("sums", ["rate"]), ("sums", [])]


def test_refused_requests_count_as_traffic(site: Site) -> None:
    for number in range(2000):
        site.now_s = number / 40.0
        site.regions.request_refused(make_request(), Overloaded("x", 1.0), 0.0)
    assert site.heard.told == [("sums", ["rate"])]


def test_claims_that_are_not_kept_are_a_departure(site: Site) -> None:
    site.ask(10.0, 4, replace(ANSWER, claimed_s=0.015))
    assert site.heard.told == [("sums", ["overrun"])]


def test_another_region_starts_afresh_and_the_same_goes_on(site: Site) -> None:
    site.ask(40.0, 4)
    site.regions.policy_applied("digest", ())
    assert site.heard.told == [("sums", ["rate"])]
    site.policy = tuned(REGION.model_copy(update={"rate_hz": (30.0, 50.0)}))
    site.regions.policy_applied("digest", ())
    assert site.heard.told == [("sums", ["rate"]), ("sums", [])]
    site.ask(40.0, 4)
    site.policy = tuned(None)
    site.regions.policy_applied("digest", ())
    site.ask(400.0, 4)
    assert site.heard.told == [("sums", ["rate"]), ("sums", [])]


def test_a_model_that_comes_back_is_where_it_was(site: Site) -> None:
    site.regions.model_loaded(make_model())
    assert site.heard.told == []
    site.ask(40.0, 4)
    site.regions.model_loaded(make_model())
    assert site.heard.told == [("sums", ["rate"])] * 2
