from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from loadtests.intervals import (
    binomial_cdf,
    middle,
    percentile_interval,
    resample,
    samples_for_bound,
    share_interval,
)


@pytest.mark.parametrize(("allowed", "samples"), [(0, 459), (1, 662)])
def test_a_p99_bound_needs_the_known_number_of_samples(allowed: int, samples: int) -> None:
    assert samples_for_bound(0.99, allowed) == samples


def test_a_p999_bound_needs_4603_samples() -> None:
    assert samples_for_bound(0.999, 0) == 4603


@pytest.mark.parametrize(("hits", "count", "share"), [(0, 10, 0.1), (3, 500, 0.01), (40, 60, 0.5), (9, 9, 0.2)])
def test_binomial_probabilities_are_those_of_scipy(hits: int, count: int, share: float) -> None:
    assert binomial_cdf(hits, count, share) == pytest.approx(stats.binom.cdf(hits, count, share), abs=1e-9)


@pytest.mark.parametrize("count", [100, 2000, 20_000])
def test_a_percentile_interval_holds_the_true_percentile_as_often_as_it_says(count: int) -> None:
    rng = np.random.default_rng(0)
    true = -math.log(0.05)  # the p95 of the exponential distribution
    held = 0
    for _ in range(400):
        low, high = percentile_interval(np.sort(rng.exponential(1.0, count)), 0.95)
        held += low <= true <= high
    assert held / 400 >= 0.92


def test_a_percentile_of_few_samples_is_open_at_the_top() -> None:
    low, high = percentile_interval(np.arange(100.0), 0.999)
    assert high == math.inf
    assert low > 90.0


def test_a_share_of_nothing_is_unknown_and_one_of_many_is_narrow() -> None:
    assert share_interval(0, 0) == (0.0, 1.0)
    low, high = share_interval(990, 1000)
    assert 0.98 < low < 0.99 < high < 0.996


def test_draws_of_a_mean_spread_as_its_standard_error_says() -> None:
    values = np.random.default_rng(1).normal(5.0, 1.0, 4000)
    low, high = middle(resample(lambda where: float(values[where].mean()), len(values), seed=0))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(4000), rel=0.35)
