from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell
from service.policy.latency import Claim, Correction, Handover, Median, safe_quantile_s, safe_table
from tests.builders import make_variant

if TYPE_CHECKING:
    from collections.abc import Callable

CELL = LatencyCell(1, 0.010, 0.020, 0.030)


def test_correction_starts_at_the_profile() -> None:
    assert Correction().at(123.0) == 1.0


def test_correction_converges_on_a_machine_that_is_twice_as_slow() -> None:
    correction = Correction()
    for _ in range(100):
        correction.observe(0.020, 0.010, now_s=1.0)
    assert correction.at(1.0) == pytest.approx(2.0, rel=1e-3)


def test_correction_forgets_nine_tenths_of_a_step_in_about_twenty_runs() -> None:
    correction = Correction()
    for _ in range(22):
        correction.observe(0.020, 0.010, now_s=1.0)
    assert correction.at(1.0) == pytest.approx(2.0, abs=0.1)


def test_correction_counts_a_single_stall_at_most_fourfold() -> None:
    correction = Correction()
    correction.observe(10.0, 0.010, now_s=1.0)
    assert correction.at(1.0) == pytest.approx(0.9 + 0.1 * 4.0)


def test_correction_relaxes_half_way_to_its_base_in_ten_seconds() -> None:
    correction = Correction()
    correction.rebase(1.5, now_s=0.0)
    correction.observe(0.030, 0.010, now_s=100.0)
    above = correction.at(100.0) - 1.5
    assert above > 0.0
    assert correction.at(110.0) - 1.5 == pytest.approx(above / 2)
    assert correction.at(1000.0) == pytest.approx(1.5)


def test_correction_does_not_relax_backwards_when_the_clock_is_behind() -> None:
    correction = Correction()
    correction.observe(0.040, 0.010, now_s=100.0)
    assert correction.at(50.0) == correction.at(100.0)


def test_correction_survives_a_profile_of_zero() -> None:
    correction = Correction()
    correction.observe(0.010, 0.0, now_s=0.0)
    assert correction.at(0.0) == pytest.approx(1.3)


@given(st.lists(st.floats(0.0, 100.0), max_size=50), st.floats(0.0, 1000.0))
def test_correction_stays_between_what_it_saw(times: list[float], later_s: float) -> None:
    correction = Correction()
    for actual_s in times:
        correction.observe(actual_s, 1.0, now_s=0.0)
    assert min([1.0, *times]) - 1e-9 <= correction.at(later_s) <= max([1.0, *times]) + 1e-9


def test_handover_follows_what_it_sees() -> None:
    handover = Handover()
    for _ in range(100):
        handover.observe_before(0.0004)
        handover.observe_after(0.0002)
    assert (handover.before_s, handover.after_s) == pytest.approx((0.0004, 0.0002), rel=1e-3)


@given(st.lists(st.floats(-1.0, 100.0), max_size=50))
def test_handover_never_exceeds_a_millisecond_whatever_stalls(times: list[float]) -> None:
    handover = Handover()
    for seconds in times:
        handover.observe_after(seconds)
    assert 0.0 <= handover.after_s <= 0.001


def test_time_set_aside_follows_a_busy_loop_up_to_a_share_of_the_budget_and_comes_back() -> None:
    handover = Handover()
    for _ in range(100):
        handover.observe_after(0.002)
        handover.observe_after(0.012)
    assert 0.010 < handover.set_aside_s(budget_s=0.1) < 0.012
    assert handover.set_aside_s(budget_s=0.010) == pytest.approx(0.004)
    for _ in range(1000):
        handover.observe_after(0.0002)
    assert handover.set_aside_s(budget_s=0.1) < 0.0003


@given(st.integers(0, 2**32))
def test_median_rests_where_half_of_the_times_are_above(seed: int) -> None:
    rng, median, below = random.Random(seed), Median(1.0), 0  # noqa: S311 - no secret
    for count in range(3000):
        seconds = 0.001 * rng.lognormvariate(0.0, 1.0)
        median.observe(seconds)
        below += count >= 1000 and seconds < median.value_s
    assert 0.4 < below / 2000 < 0.6


def test_typical_time_after_a_run_is_told_by_its_rows() -> None:
    handover = Handover(after_s=0.001)
    assert handover.typical_after_s(8) == 0.001
    for _ in range(200):
        handover.observe_after(0.0001, rows=1)
        handover.observe_after(0.0008, rows=8)
    assert handover.typical_after_s(1) == pytest.approx(0.0001, rel=0.05)
    assert handover.typical_after_s(8) == pytest.approx(0.0008, rel=0.05)
    assert handover.typical_after_s(2) == handover.after_s


def test_more_is_set_aside_where_requests_are_turned_away() -> None:
    handover = Handover(after_s=0.001)
    assert handover.set_aside_s(0.1) == 0.001
    assert handover.set_aside_s(0.1, is_pressed=True) == pytest.approx(0.021)


@pytest.mark.parametrize("is_pressed", [False, True])
def test_machine_that_stood_still_leaves_some_of_every_budget_for_the_run(is_pressed: bool) -> None:
    handover = Handover(after_s=5.0)
    assert handover.set_aside_s(0.01, is_pressed=is_pressed) == pytest.approx(0.006)


@pytest.mark.parametrize(("quantile", "expected_s"), [("p50", 0.015), ("p95", 0.030), ("p99", 0.045)])
def test_prediction_is_the_policys_quantile_with_its_margin(quantile: str, expected_s: float) -> None:
    policy = ModelPolicy.model_validate({"safety_quantile": quantile, "safety_margin_ratio": 0.5})
    assert safe_quantile_s(CELL, policy) == pytest.approx(expected_s)


def test_prediction_table_holds_every_number_of_rows() -> None:
    table = safe_table(make_variant("full", 0.9, 0.010), ModelPolicy(safety_margin_ratio=0.0), max_rows=4)
    assert table == pytest.approx((0.0, 0.010, 0.020, 0.030, 0.040))


def lognormal(chance: random.Random, number: int) -> float:
    del number
    return 0.010 * chance.lognormvariate(0.0, 0.5)


def bimodal(chance: random.Random, number: int) -> float:
    """Return a time that a neighbour on the same core triples, one time in twenty."""
    del number
    return 0.010 * chance.uniform(0.9, 1.1) * (3.0 if chance.random() < 0.05 else 1.0)


def drifting(chance: random.Random, number: int) -> float:
    """Return a time whose spread doubles and halves again over ten thousand answers."""
    return 0.010 * chance.lognormvariate(0.0, 0.2 * (1.0 + 0.5 * math.sin(number * math.tau / 10_000)))


def steady(chance: random.Random, number: int) -> float:
    del number
    return 0.010 * chance.uniform(0.99, 1.01)


@pytest.mark.parametrize("draw", [lognormal, bimodal, drifting, steady])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_claim_covers_about_ninety_nine_of_a_hundred_whatever_the_distribution(
    draw: Callable[[random.Random, int], float], seed: int
) -> None:
    chance, claim, covered = random.Random(seed), Claim(), 0  # noqa: S311 - a repeatable draw, no secret
    for number in range(25_000):
        actual_s = draw(chance, number)
        covered += number >= 5_000 and actual_s <= claim.factor * 0.010
        claim.observe(actual_s, 0.010)
    assert 0.985 <= covered / 20_000 <= 0.995


@pytest.mark.parametrize("draw", [lognormal, bimodal, steady])
def test_claim_covers_as_many_of_a_variants_first_two_thousand_answers(
    draw: Callable[[random.Random, int], float],
) -> None:
    chance, claim, covered = random.Random(1), Claim(), 0  # noqa: S311 - a repeatable draw, no secret
    for number in range(2_000):
        actual_s = draw(chance, number)
        covered += actual_s <= claim.factor * 0.010
        claim.observe(actual_s, 0.010)
    assert 0.985 <= covered / 2_000 <= 0.995


def test_claim_follows_a_distribution_that_becomes_calm() -> None:
    chance, claim = random.Random(5), Claim()  # noqa: S311 - a repeatable draw, no secret
    for number in range(5_000):
        claim.observe(lognormal(chance, number), 0.010)
    wide = claim.factor
    for number in range(5_000):
        claim.observe(steady(chance, number), 0.010)
    assert claim.factor < 1.1
    assert wide > 2.0


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1e3), max_size=100))
def test_claim_never_falls_below_what_is_typical(times: list[float]) -> None:
    claim = Claim()
    for actual_s in times:
        claim.observe(actual_s, 1.0)
        assert claim.factor >= 1.0
