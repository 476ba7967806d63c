from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.policy_file import TunedRegion
from service.policy.region import RegionWatch

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW_S = 10.0
REGION = TunedRegion(window_s=WINDOW_S, rate_hz=(20.0, 30.0), peak_hz=(25.0, 60.0), budget_ms=(18.0, 25.0))


class Traffic:
    """Feeds a watch windows of evenly spaced requests."""

    def __init__(self, region: TunedRegion = REGION) -> None:
        self.watch = RegionWatch(region, 0.0)
        self.now_s = 0.0
        self.changes = 0

    def windows(self, count: int, rate_hz: float = 25.0, budget_s: float = 0.02, overruns: float = 0.0) -> set[str]:
        """Return the figures that are outside after so many windows; a share of answers takes too long."""
        for _ in range(count):
            requests = int(rate_hz * WINDOW_S)
            self.feed((self.now_s + WINDOW_S * (n + 0.5) / requests, n < overruns * requests) for n in range(requests))
            self.now_s += WINDOW_S
        self.changes += self.watch.saw(self.now_s, budget_s, overran=False)  # the next window judges the last
        return set(self.watch.departures)

    def feed(self, requests: Iterable[tuple[float, bool]], budget_s: float = 0.02) -> None:
        for moment_s, overran in requests:
            self.changes += self.watch.saw(moment_s, budget_s, overran=overran)


def test_traffic_as_tuned_never_leaves() -> None:
    traffic = Traffic()
    assert not traffic.windows(20)
    assert traffic.changes == 0


@pytest.mark.parametrize(("rate_hz", "figures"), [(80.0, {"rate"}), (200.0, {"rate", "peak"}), (2.5, {"rate"})])
def test_a_rate_beyond_what_was_tuned_for_leaves_after_two_windows(rate_hz: float, figures: set[str]) -> None:
    traffic = Traffic()
    assert not traffic.windows(1, rate_hz)
    assert traffic.windows(1, rate_hz) == figures
    assert traffic.watch.departures["rate"].value == pytest.approx(rate_hz, rel=0.05)


def test_one_odd_window_changes_nothing() -> None:
    traffic = Traffic()
    for _ in range(5):
        assert not traffic.windows(1, 80.0)
        assert not traffic.windows(1)


def test_two_windows_as_tuned_bring_traffic_back() -> None:
    traffic = Traffic()
    traffic.windows(3, 80.0)
    assert traffic.windows(1) == {"rate"}
    assert not traffic.windows(1)
    assert traffic.changes == 2


def test_other_budgets_leave() -> None:
    traffic = Traffic()
    for window in range(2):
        traffic.feed(((window * WINDOW_S + n / 25.0, False) for n in range(250)), budget_s=0.2)
    traffic.watch.saw(2 * WINDOW_S, 0.2, overran=False)
    departure = traffic.watch.departures["budget"]
    assert departure.value == pytest.approx(200.0)
    assert departure.low < 18.0
    assert 25.0 < departure.high < 200.0
    assert "budget 200 is outside" in str(departure)


def test_answers_later_than_claimed_leave() -> None:
    traffic = Traffic()
    assert not traffic.windows(3, overruns=0.02)
    assert traffic.windows(2, overruns=0.2) == {"overrun"}


def test_requests_without_an_answer_or_a_budget_count_as_arrivals_only() -> None:
    watch = RegionWatch(REGION, 0.0)
    for n in range(1000):
        watch.saw(n / 25.0, None, overran=None)
    assert not watch.departures


def test_a_model_that_nobody_asks_has_left_nothing() -> None:
    traffic = Traffic()
    traffic.windows(2)
    traffic.now_s += 50 * WINDOW_S
    assert not traffic.windows(3)


def test_a_handful_of_requests_proves_nothing() -> None:
    quiet = TunedRegion(window_s=WINDOW_S, rate_hz=(0.1, 0.1), peak_hz=(0.1, 6.0), budget_ms=(20.0, 20.0))
    traffic = Traffic(quiet)
    assert not traffic.windows(10, 0.5)
    assert traffic.windows(2, 10.0) >= {"rate"}


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=200), st.floats(1e-3, 10.0))
def test_any_traffic_is_counted_without_an_error(moments_s: list[float], budget_s: float) -> None:
    watch = RegionWatch(REGION, 0.0)
    changed = [watch.saw(moment_s, budget_s, overran=True) for moment_s in sorted(moments_s)]
    assert set(watch.departures) <= {"rate", "peak", "budget", "overrun"}
    assert any(changed) or not watch.departures
