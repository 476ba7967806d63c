from __future__ import annotations

from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.drift import AllowedLoss
from service.policy.drift.sequential import FallTest, RiseTest, bounds_at

DROP = 0.05


def first_alarm(losses: list[float], bound: float, run_length: float) -> int | None:
    test = RiseTest(DROP)
    for place, loss in enumerate(losses, start=1):
        test.observe(loss, bound)
        if test.run_length >= run_length:
            return place
    return None


def after(history: list[bool], bounds: tuple[float, ...], last: float | None) -> float:
    test = RiseTest(DROP)
    for loss in history:
        test.observe(float(loss), *bounds)
    if last is not None:
        test.observe(last, *bounds)
    return test.run_length


@given(st.lists(st.booleans(), max_size=30), st.lists(st.floats(0.005, 0.9), min_size=1, max_size=2))
def test_evidence_grows_by_one_sample_on_average_at_the_allowed_rate(history: list[bool], rates: list[float]) -> None:
    # E[R_n | past] = 1 + R_(n-1): the whole guarantee. With two bounds the mean of their sums has it each for itself.
    for rate in rates:
        before = after(history, (rate,), None)
        expected = rate * after(history, (rate,), 1.0) + (1.0 - rate) * after(history, (rate,), 0.0)
        assert expected == pytest.approx(1.0 + before, rel=1e-9)


@given(st.lists(st.floats(0.0, 1.0), max_size=40), st.floats(0.0, 1.0))
def test_evidence_is_never_negative_and_rises_with_the_loss(losses: list[float], rate: float) -> None:
    mild, severe = RiseTest(DROP), RiseTest(DROP)
    for loss in losses:
        mild.observe(loss / 2, rate)
        severe.observe(loss, rate)
        assert 0.0 <= mild.run_length <= severe.run_length * (1 + 1e-9)


def test_false_alarms_are_rarer_than_the_run_length_promises() -> None:
    chance, run_length, bound = np.random.default_rng(0), 100.0, 0.05
    times = [first_alarm((chance.random(4000) < bound).astype(float).tolist(), bound, run_length) for _ in range(60)]
    assert np.mean([4000 if time is None else time for time in times]) >= run_length


@pytest.mark.parametrize("clean", [0, 3000])
def test_a_drop_of_five_points_is_found_soon_whenever_it_begins(clean: int) -> None:
    chance, delays = np.random.default_rng(1), []
    for _ in range(25):
        past, faulty = chance.random(clean) < 0.005, chance.random(1500) < 0.055
        found = first_alarm(np.concatenate([past, faulty]).astype(float).tolist(), 0.01, 3000.0)
        assert found is None or found > clean
        delays.append(1500 if found is None else found - clean)
    assert median(delays) <= 150


def test_a_disagreement_where_full_is_sure_says_more() -> None:
    allowed = AllowedLoss(rate=0.03, intercept=-2.0, slope=-2.0)
    sure, unsure = RiseTest(DROP), RiseTest(DROP)
    for _ in range(3):
        sure.observe(1.0, *bounds_at(allowed, 3.0))
        unsure.observe(1.0, *bounds_at(allowed, -3.0))
    assert sure.run_length > 10 * unsure.run_length


def test_bounds_are_one_for_all_rows_where_the_build_found_no_other() -> None:
    assert bounds_at(AllowedLoss(rate=0.03), 5.0) == (0.03,)
    assert bounds_at(AllowedLoss(rate=0.03, slope=-1.0), 1e6)[1] == pytest.approx(0.0)


def test_number_of_samples_alone_makes_nothing_recent_and_a_rise_does_at_once() -> None:
    test = RiseTest(DROP)
    for _ in range(1000):
        test.observe(0.0, 0.03, 0.002)
    assert test.run_length > 20.0
    assert test.recent <= 1.0
    test.observe(1.0, 0.03, 0.002)
    assert test.recent > 20.0
    for _ in range(40):
        test.observe(0.0, 0.03, 0.002)
    assert test.recent < 2.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40), st.floats(0.01, 0.9))
def test_what_is_recent_is_never_more_than_the_evidence(losses: list[float], rate: float) -> None:
    test = RiseTest(DROP)
    for loss in losses:
        test.observe(loss, rate)
    assert 0.0 <= test.recent <= test.run_length * (1 + 1e-9)


def test_reset_forgets() -> None:
    test = RiseTest(DROP)
    test.observe(1.0, 0.01)
    test.reset()
    assert (test.run_length, test.recent) == (0.0, 0.0)


def test_the_fall_test_clears_only_when_losses_are_few() -> None:
    chance = np.random.default_rng(2)
    restored, stuck = FallTest(limit=0.06, aim=0.01), FallTest(limit=0.06, aim=0.01)
    highest = 0.0
    for _ in range(400):
        restored.observe(float(chance.random() < 0.01))
        stuck.observe(float(chance.random() < 0.2))
        highest = max(highest, stuck.run_length)
    assert restored.run_length > 500.0 > highest


@given(st.lists(st.booleans(), max_size=30), st.floats(0.02, 0.9))
def test_the_fall_test_keeps_the_same_promise(history: list[bool], limit: float) -> None:
    def found(last: float | None) -> float:
        test = FallTest(limit=limit, aim=limit / 4)
        for loss in [float(loss) for loss in history] + ([] if last is None else [last]):
            test.observe(loss)
        return test.run_length

    assert limit * found(1.0) + (1.0 - limit) * found(0.0) == pytest.approx(1.0 + found(None), rel=1e-9)
