from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.policy.drift.detection import Detection, overlaps
from service.policy.drift.regression import Regression

Outputs = list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]
BOX = [0.0, 0.0, 10.0, 10.0]


def seen(*boxes: tuple[list[float], float, int]) -> Outputs:
    return [
        np.array([[box for box, _, _ in boxes]]).reshape(1, -1, 4),
        np.array([[score for _, score, _ in boxes]]).reshape(1, -1),
        np.array([[float(name) for _, _, name in boxes]]).reshape(1, -1),
    ]


def loss(full: Outputs, variant: Outputs) -> float:
    (pair,) = Detection().compare(full, variant)
    return pair.loss


def test_a_relative_error_counts_up_to_one() -> None:
    pairs = Regression(scale=1.0).compare([np.array([[10.0], [10.0], [0.0]])], [np.array([[11.0], [90.0], [0.5]])])
    assert [pair.loss for pair in pairs] == pytest.approx([0.1, 1.0, 0.5])


def test_a_value_that_is_no_number_is_wholly_wrong() -> None:
    (pair,) = Regression().compare([np.array([[1.0, 1.0]])], [np.array([[1.0, np.nan]])])
    assert pair.loss == pytest.approx(0.5)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=5))
def test_regression_losses_are_ratios_and_none_for_the_same(values: list[float]) -> None:
    rows = np.array([values])
    assert Regression().compare([rows], [rows])[0].loss == 0.0
    assert 0.0 <= Regression().compare([rows], [rows[:, ::-1]])[0].loss <= 1.0


def test_the_same_boxes_agree_and_none_at_all_agree_too() -> None:
    assert loss(seen((BOX, 0.9, 1)), seen((BOX, 0.8, 1))) == pytest.approx(0.0)
    assert loss(seen(), seen()) == 0.0
    assert loss(seen((BOX, 0.9, 1)), seen((BOX, 0.1, 1))) == 1.0, "a box below the least score is not seen"


def test_another_class_or_place_disagrees() -> None:
    assert loss(seen((BOX, 0.9, 1)), seen((BOX, 0.9, 2))) == 1.0
    assert loss(seen((BOX, 0.9, 1)), seen(([50.0, 50.0, 60.0, 60.0], 0.9, 1))) == 1.0


def test_a_worse_place_costs_a_part() -> None:
    # 8 of 12 columns are shared: an overlap of 2/3, enough for 0.5 to 0.65 of ten thresholds.
    assert loss(seen((BOX, 0.9, 1)), seen(([2.0, 0.0, 12.0, 10.0], 0.9, 1))) == pytest.approx(0.6)


def test_a_missed_box_and_a_second_claim_to_one_cost() -> None:
    other = [20.0, 20.0, 30.0, 30.0]
    assert loss(seen((BOX, 0.9, 1), (other, 0.9, 1)), seen((BOX, 0.9, 1))) == pytest.approx(1 / 3)
    assert loss(seen((BOX, 0.9, 1)), seen((BOX, 0.9, 1), (BOX, 0.8, 1))) == pytest.approx(1 / 3)


def test_overlap_of_boxes_without_area_is_none() -> None:
    assert overlaps(np.array([[1.0, 1.0, 1.0, 1.0]]), np.array([[1.0, 1.0, 1.0, 1.0]])).item() == 0.0
