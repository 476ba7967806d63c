from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.drift import Calibration
from service.policy.drift.estimate import chances, estimate_accuracy, together
from service.policy.drift.pairs import Pair

PLAIN = Calibration(
    intercept=0.0, slope=1.0, threshold=1.0, accuracy=0.9, error_floor=0.01, error_slope=0.3, pair_error_slope=0.3
)


def window(rows: int, mean: float, seed: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """Return log-odds of answers whose chances are as stated, and how many of them are right."""
    chance = np.random.default_rng(seed)
    odds = chance.normal(mean, 1.5, rows)
    return odds, float((chance.random(rows) < 1.0 / (1.0 + np.exp(-odds))).mean())


def test_calibrated_confidence_gives_the_accuracy() -> None:
    errors = []
    for seed in range(30):
        odds, truth = window(500, 1.0 + seed / 15, seed)
        found = estimate_accuracy(odds, PLAIN)
        assert found is not None
        assert found.low <= truth <= found.high
        errors.append(abs(found.value - truth))
    assert np.mean(errors) < 0.02


def test_too_few_rows_give_none() -> None:
    assert estimate_accuracy(np.zeros(29), PLAIN) is None
    assert estimate_accuracy(np.zeros(30), PLAIN) is not None


@given(
    st.lists(st.floats(-40, 40), min_size=30, max_size=60),
    st.lists(st.tuples(st.booleans(), st.floats(-30, 30), st.floats(-30, 30)), max_size=60),
)
def test_an_estimate_lies_within_its_interval_and_within_0_to_1(
    odds: list[float], answers: list[tuple[bool, float, float]]
) -> None:
    pairs = [Pair(float(differs), 0.0, 0.0, full, own) for differs, full, own in answers]
    found = estimate_accuracy(np.array(odds), PLAIN, pairs, PLAIN)
    assert found is not None
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.method == ("shadow" if len(pairs) >= 30 else "confidence")


def test_pairs_show_damage_that_confidence_hides() -> None:
    chance = np.random.default_rng(3)
    odds = np.full(500, 5.0)  # sure of everything
    wrong = chance.random(200) < 0.3
    pairs = [Pair(float(is_wrong), 0.5, 0.9, 6.0, 5.0) for is_wrong in wrong]
    alone, both = estimate_accuracy(odds, PLAIN), estimate_accuracy(odds, PLAIN, pairs, PLAIN)
    assert alone is not None
    assert both is not None
    assert alone.value > 0.98
    assert both.value == pytest.approx(1.0 - wrong.mean(), abs=0.1)
    assert both.value < 0.85


def test_an_estimate_far_from_the_known_accuracy_is_trusted_less() -> None:
    far, near = estimate_accuracy(np.full(500, 0.0), PLAIN), estimate_accuracy(np.full(500, 2.2), PLAIN)
    assert far is not None
    assert near is not None
    assert far.high - far.low > 2 * (near.high - near.low)


def test_the_threshold_counts_rows_above_it() -> None:
    found = estimate_accuracy(np.array([0.0] * 25 + [2.0] * 75), replace(PLAIN, threshold=1.0))
    assert found is not None
    assert found.threshold == 0.75


def test_of_two_that_differ_the_surer_is_likelier_right() -> None:
    chance = together(np.array([0.9, 0.5]), np.array([0.5, 0.9]), np.array([False, False]))
    assert chance[0] < 0.2
    assert chance[1] > 0.6
    assert together(np.array([0.9]), np.array([0.1]), np.array([True])).item() == 0.9


def test_chances_do_not_overflow() -> None:
    assert chances(np.array([-1e9, 1e9]), PLAIN) == pytest.approx([0.0, 1.0])
