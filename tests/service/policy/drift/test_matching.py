from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.drift import ByBoxes, ByClass, ByValue
from service.policy.drift.detection import Detection, read_boxes
from service.policy.drift.matching import matches, readings

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
BOXES = ByBoxes(least_score=0.25, overlap=0.5, suppression=0.45)


def answer(*places: tuple[float, float, float, float, float, float]) -> Array:
    """Return an answer (4 + 2, places) of boxes with two scores each."""
    return np.array(places, dtype=np.float64).reshape(-1, 6).T


def seen(*places: tuple[float, float, float, float, float, float]) -> Array:
    (found,) = readings(answer(*places)[None], BOXES)
    return found


def test_a_class_matches_by_its_number() -> None:
    first, second = readings(np.array([[0.1, 2.0, 0.3], [5.0, 1.0, 0.0]]), ByClass())
    assert matches(first, np.array([1.0]), ByClass())
    assert not matches(second, np.array([1.0]), ByClass())


def test_values_match_within_the_tolerance() -> None:
    (found,) = readings(np.array([[[1.0, 2.0]]]), ByValue(0.5))
    assert matches(found, np.array([1.5, 2.0]), ByValue(0.5))
    assert not matches(found, np.array([1.6, 2.0]), ByValue(0.5)), "each value counts"
    assert not matches(found, np.array([1.0]), ByValue(0.5)), "another shape is another thing"
    assert not matches(np.array([np.nan, 2.0]), found, ByValue(0.5))


def test_boxes_are_read_by_falling_score_and_without_rivals() -> None:
    found = seen(
        (10, 10, 8, 8, 0.6, 0.1),
        (10, 11, 8, 8, 0.9, 0.2),  # of the same class, overlaps the first by 7/9
        (10, 10, 8, 8, 0.1, 0.5),  # of another class
        (40, 40, 8, 8, 0.2, 0.1),  # too unsure
    )
    assert found.tolist() == [[0, 10, 11, 8, 8, 0.9], [1, 10, 10, 8, 8, 0.5]]
    assert read_boxes(np.zeros((6, 0)), 0.25, 0.45).shape == (0, 6)


def test_boxes_match_one_to_one() -> None:
    found = seen((10, 10, 8, 8, 0.9, 0.0), (30, 30, 8, 8, 0.0, 0.8))
    label = np.array([[1.0, 31, 30, 8, 8], [0.0, 10, 10, 8, 8], [-1.0, -1, -1, -1, -1]])
    assert matches(found, label, BOXES), "order and filling do not matter"
    assert not matches(found, label[:1], BOXES), "a false alarm"
    assert not matches(found[:1], label, BOXES), "a missed object"
    assert not matches(found, label[[0, 0]], BOXES), "one box cannot claim two"
    moved = label + np.array([0.0, 4.0, 0.0, 0.0, 0.0])
    assert not matches(found, moved, BOXES), "an overlap of 3/13 is none"
    assert matches(seen(), np.zeros((0, 5)), BOXES), "nothing there, nothing seen"


@given(st.integers(0, 2**32 - 1))
def test_every_reading_matches_itself_whatever_the_rule(seed: int) -> None:
    chance = np.random.default_rng(seed)
    (row,) = readings(chance.uniform(0.0, 1.0, (1, 6, 9)) * np.array([30, 30, 9, 9, 1, 1])[None, :, None], BOXES)
    assert matches(row, row, BOXES)
    values = chance.normal(size=(1, 3))
    for scoring in (ByClass(), ByValue(0.0)):
        (row,) = readings(values, scoring)
        assert matches(row, row, scoring)


def test_a_detector_of_one_output_agrees_by_matching() -> None:
    judge = Detection(0.25, 0.45)
    full = answer((10, 10, 8, 8, 0.9, 0.0), (30, 30, 8, 8, 0.0, 0.8))[None]
    half = answer((10, 10, 8, 8, 0.7, 0.0), (30, 30, 8, 8, 0.0, 0.1))[None]
    assert judge.compare([full], [full])[0].loss == 0.0
    assert judge.compare([full], [half])[0].loss == pytest.approx(1 / 3), "F1 of one of two found"


def test_an_answer_with_what_is_no_number_agrees_with_nothing() -> None:
    empty, broken = np.zeros((1, 6, 3)), np.full((1, 6, 3), np.nan)
    assert Detection().compare([empty], [empty])[0].loss == 0.0
    assert Detection().compare([empty], [broken])[0].loss == 1.0
