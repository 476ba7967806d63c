from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests.serving.searches import capacity_hz, highest, least_seconds, peak_of, recovery_s
from loadtests.simulator.event_loop import LoopCosts
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import make_ladder

if TYPE_CHECKING:
    from collections.abc import Callable

LADDER = make_ladder("m", {"full": (0.030, 0.9), "small": (0.010, 0.8), "useless": (0.040, 0.7)})
FLEET = Fleet((LADDER,), lanes=2, machine=Machine(per_run_s=0.0))


def below(limit: float) -> Callable[[float], bool]:
    return lambda load: load <= limit


@pytest.mark.parametrize("limit", [0.02, 0.5, 0.9, 7.0, 300.0])
@pytest.mark.parametrize("start", [0.5, 1.0])
def test_search_finds_the_highest_load_that_passes(limit: float, start: float) -> None:
    found = highest(below(limit), start)
    assert found <= limit
    assert found == pytest.approx(limit, rel=0.04)


def test_search_gives_up_where_nothing_passes() -> None:
    assert highest(below(0.001), 1.0) == 0.0


def test_search_ends_where_everything_passes() -> None:
    assert highest(below(1e9), 1.0) >= 1000.0


def test_recovery_is_the_first_moment_from_which_99_of_100_are_on_time() -> None:
    times_s = np.arange(1000, dtype=np.float64) * 0.01
    on_time = np.ones(1000, np.bool_)
    on_time[300:450] = False
    assert recovery_s(times_s, on_time, 4.0) == pytest.approx(0.49, abs=0.011)
    assert recovery_s(times_s, np.ones(1000, np.bool_), 4.0) == 0.0


def test_recovery_that_never_comes_has_no_figure() -> None:
    times_s = np.arange(300, dtype=np.float64) * 0.01
    assert recovery_s(times_s, np.zeros(300, np.bool_), 1.0) is None
    assert recovery_s(times_s, np.ones(300, np.bool_), 2.5) is None


def test_peak_is_offered_at_the_least_rate_that_reaches_it() -> None:
    assert peak_of([(10.0, 10.0), (20.0, 19.9), (40.0, 20.0), (80.0, 15.0)]) == (20.0, 20.0)


def test_least_seconds_mixes_the_two_cheapest_variants() -> None:
    assert least_seconds(FLEET, 0.9) == pytest.approx(0.030)
    assert least_seconds(FLEET, 0.85) == pytest.approx(0.020)
    assert least_seconds(FLEET, 0.5) == pytest.approx(0.010)
    assert least_seconds(FLEET, 0.95) == float("inf")


def test_capacity_is_the_lanes_or_the_event_loop_whichever_is_less() -> None:
    slow = Machine(per_run_s=0.0, loop=LoopCosts(0.01, 0.01))
    assert capacity_hz(FLEET) == pytest.approx(200.0)
    assert capacity_hz(Fleet((LADDER,), lanes=2, machine=slow)) == pytest.approx(50.0)
