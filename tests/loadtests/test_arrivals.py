from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests import arrivals
from loadtests.traces import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Draw = Callable[[np.random.Generator], NDArray[np.float64]]

DURATION_S = 200.0
RATE_HZ = 50.0
PROCESSES: dict[str, Draw] = {
    "constant": lambda _: arrivals.constant(RATE_HZ, DURATION_S),
    "poisson": lambda rng: arrivals.poisson(RATE_HZ, DURATION_S, rng),
    "gamma": lambda rng: arrivals.gamma_renewal(RATE_HZ, 2.0, DURATION_S, rng),
    "mmpp": lambda rng: arrivals.mmpp((25.0, 75.0), (1.0, 1.0), DURATION_S, rng),
    "diurnal": lambda rng: arrivals.follow(arrivals.diurnal(RATE_HZ, 0.8, DURATION_S), DURATION_S, rng),
    "step": lambda rng: arrivals.piecewise((0.0, 100.0), (25.0, 75.0), DURATION_S, rng),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_arrivals_ascend_within_the_duration_at_the_asked_rate(name: str) -> None:
    times = PROCESSES[name](np.random.default_rng(1))
    assert np.all(np.diff(times) >= 0.0)
    assert times[0] >= 0.0
    assert times[-1] < DURATION_S
    assert len(times) / DURATION_S == pytest.approx(RATE_HZ, rel=0.1)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_seed_gives_the_same_arrivals_again_and_another_seed_others(name: str) -> None:
    first, again, other = (PROCESSES[name](np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert name == "constant" or not np.array_equal(first[:50], other[:50])


@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0])
def test_gamma_gaps_have_the_asked_variation(cv: float) -> None:
    times = arrivals.gamma_renewal(100.0, cv, 500.0, np.random.default_rng(5))
    assert describe(times).gap_cv == pytest.approx(cv, rel=0.05)


def test_poisson_counts_are_not_dispersed_and_modulated_ones_are() -> None:
    calm = describe(PROCESSES["poisson"](np.random.default_rng(6)))
    bursty = describe(arrivals.mmpp((5.0, 95.0), (5.0, 5.0), DURATION_S, np.random.default_rng(6)))
    assert calm.dispersion_1s == pytest.approx(1.0, abs=0.35)
    assert bursty.dispersion_1s > 10.0


def test_a_days_curve_is_followed() -> None:
    times = PROCESSES["diurnal"](np.random.default_rng(7))
    night, noon = (np.sum((times >= start) & (times < start + 20.0)) / 20.0 for start in (0.0, 90.0))
    assert night < 0.35 * RATE_HZ
    assert noon > 1.6 * RATE_HZ


def test_a_step_changes_the_rate_at_its_moment() -> None:
    times = PROCESSES["step"](np.random.default_rng(8))
    assert np.sum(times < 100.0) == pytest.approx(2500, rel=0.1)
    assert np.sum(times >= 100.0) == pytest.approx(7500, rel=0.1)


def test_a_crowd_climbs_stays_and_leaves() -> None:
    curve = arrivals.flash_crowd(10.0, 100.0, 20.0, (2.0, 5.0, 3.0))
    rates = curve(np.array([0.0, 19.9, 21.0, 24.0, 26.9, 30.0, 60.0]))
    assert rates == pytest.approx([10.0, 10.0, 55.0, 100.0, 100.0, 10.0 + 90.0 * np.exp(-1.0), 10.0], rel=0.01)
