"""Reading, matching and mean average precision of boxes, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from service.domain.drift import ByBoxes
from service.policy.drift.detection import Detection, read_boxes
from service.policy.drift.matching import matches, readings
from variants.average_precision import average_precision, mean_average_precision
from variants.boxes import Found, are_same, as_labels, disagreement, match, overlaps, read_answers, read_labels
from variants.drifting import Seen, Truth, describe_drift
from variants.scoring import Boxes

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
SCORING = Boxes()


def labelled(*objects: tuple[float, ...], most: int = 3) -> Array:
    """Return the label of one picture, (1, most, 5)."""
    rows = np.full((1, most, 5), -1.0, dtype=np.float32)
    rows[0, : len(objects)] = np.array(objects).reshape(-1, 5)
    return rows


def answered(*places: tuple[float, ...], classes: int = 2) -> Array:
    """Return an answer (1, 4 + classes, places): ``places`` are class, centre x, y, width, height, score."""
    rows = np.zeros((1, 4 + classes, len(places)), dtype=np.float32)
    for place, (name, *box, score) in enumerate(places):
        rows[0, :4, place], rows[0, 4 + int(name), place] = box, score
    return rows


def some_answers(rows: int, seed: int) -> Array:
    """Return crowded answers: boxes of 8 to 20 pixels on 32, three classes."""
    chance = np.random.default_rng(seed)
    boxes = np.concatenate([chance.uniform(0, 32, (rows, 2, 30)), chance.uniform(8, 20, (rows, 2, 30))], axis=1)
    return np.concatenate([boxes, chance.uniform(0, 0.6, (rows, 3, 30))], axis=1).astype(np.float32)


def test_overlap_is_the_share_of_the_union() -> None:
    first = np.array([[[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 1.0, 1.0]]], dtype=np.float32)
    second = np.array([[[2.0, 0.0, 12.0, 10.0], [20.0, 0.0, 30.0, 10.0]]], dtype=np.float32)
    assert overlaps(first, second)[0] == pytest.approx(np.array([[80 / 120, 0.0], [0.0, 0.0]]))


def test_suppression_keeps_the_better_of_a_class_and_what_only_a_suppressed_one_hides() -> None:
    found = read_answers(
        answered(
            (0, 10, 10, 10, 10, 0.9), (0, 13, 10, 10, 10, 0.8), (0, 16, 10, 10, 10, 0.7), (1, 10, 10, 10, 10, 0.6)
        ),
        0.25,
        0.45,
    )
    # The second overlaps the first by 7/13 and goes; the third overlaps the first by 4/16 alone, and stays.
    assert found.scores[0].tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert found.classes[0].tolist() == [0, 0, 1]


def test_pictures_of_different_crowds_are_filled_up() -> None:
    found = read_answers(np.concatenate([answered((0, 9, 9, 4, 4, 0.9)), answered((0, 9, 9, 4, 4, 0.1))]), 0.25, 0.45)
    assert found.are_real.tolist() == [[True], [False]]
    assert as_labels(found)[:, :, 0].tolist() == [[0.0], [-1.0]]
    assert (read_labels(as_labels(found)).classes == found.classes).all()


def test_a_label_is_claimed_once_and_by_its_class() -> None:
    found = Found(
        np.array([[[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]]], dtype=np.float32),
        np.array([[0, 0, 1]]),
        np.array([[0.9, 0.8, 0.7]], dtype=np.float32),
    )
    assert match(found, read_labels(labelled((0, 5, 5, 10, 10))), 0.5).tolist() == [[True, False, False]]
    assert not match(found, read_labels(labelled()), 0.5).any()


@pytest.mark.parametrize(
    ("places", "is_right"),
    [
        ([(0, 10, 10, 8, 8, 0.9), (1, 25, 25, 8, 8, 0.5)], True),
        ([(0, 10, 10, 8, 8, 0.9)], False),
        ([(0, 10, 10, 8, 8, 0.9), (0, 25, 25, 8, 8, 0.5)], False),
        ([(0, 10, 10, 8, 8, 0.9), (1, 25, 25, 8, 8, 0.2)], False),
        ([(0, 10, 10, 8, 8, 0.9), (1, 25, 25, 8, 8, 0.5), (0, 25, 10, 8, 8, 0.4)], False),
        ([(0, 13, 10, 8, 8, 0.9), (1, 25, 25, 8, 8, 0.5)], False),
    ],
    ids=["all found", "one missed", "another class", "too unsure", "a false alarm", "too far off"],
)
def test_a_picture_is_right_where_all_is_found_and_nothing_besides(
    places: list[tuple[float, ...]], is_right: bool
) -> None:
    labels = labelled((1, 25, 25, 8, 8), (0, 10, 10, 8, 8))
    assert SCORING.right(answered(*places), labels).tolist() == [is_right]


def test_what_an_answer_says_would_make_it_right() -> None:
    outputs = some_answers(40, seed=1)
    assert SCORING.right(outputs, SCORING.answer(outputs)).all()
    assert SCORING.same(outputs, outputs).all()
    assert SCORING.divergence(outputs, outputs) == pytest.approx(0.0, abs=1e-6)
    assert not SCORING.same(outputs, some_answers(40, seed=2)).any()


def test_divergence_counts_scores_and_places_for_each_object() -> None:
    reference = answered((0, 10, 10, 8, 8, 0.5))
    assert SCORING.divergence(reference, answered((0, 10, 10, 8, 8, 0.4))) == pytest.approx(0.2)
    assert SCORING.divergence(reference, answered((0, 12, 10, 8, 8, 0.5))) == pytest.approx(1.0 - 6 / 10)


def test_average_precision_by_hand() -> None:
    # True, false, true of two labels: precision 1 up to recall 0.5 (51 of 101 points), 2/3 up to 1 (50 points).
    assert average_precision(np.array([True, False, True]), 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(np.array([True]), 2) == pytest.approx(51 / 101), "half is never found"
    assert average_precision(np.array([False, True]), 1) == pytest.approx(0.5)
    assert average_precision(np.zeros(0, dtype=bool), 3) == 0.0


def test_mean_average_precision_ranks_over_all_pictures_and_counts_every_class() -> None:
    labels = np.concatenate([labelled((0, 10, 10, 8, 8)), labelled((0, 20, 20, 8, 8)), labelled((1, 9, 9, 8, 8))])
    outputs = np.concatenate(
        [
            answered((0, 10, 10, 8, 8, 0.9), (0, 25, 25, 8, 8, 0.02)),
            answered((0, 20, 20, 8, 8, 0.7), (0, 9, 25, 8, 8, 0.8)),
            answered((0, 9, 9, 8, 8, 0.01), (0, 9, 9, 8, 8, 0.0)),
        ]
    )
    # Class 0: true 0.9, false 0.8, true 0.7, and two unsure false alarms after all is found. Class 1: never found.
    expected = (51 + 50 * 2 / 3) / 101 / 2
    beside = SCORING.beside(outputs, labels)
    assert beside["mAP@0.5"] == pytest.approx(expected)
    assert beside["mAP@0.5:0.95"] == pytest.approx(expected), "the boxes fit exactly"
    assert mean_average_precision(read_answers(outputs, 0.001, 0.45), read_labels(labelled()), (0.5,)) == 0.0


def test_overlaps_that_fit_loosely_count_in_part() -> None:
    found = read_answers(answered((0, 12, 10, 20, 20, 0.9)), 0.001, 0.45)  # overlaps by 18/22
    labels = read_labels(labelled((0, 10, 10, 20, 20)))
    assert mean_average_precision(found, labels, (0.5,)) == 1.0
    assert mean_average_precision(found, labels, (0.5, 0.8, 0.85, 0.95)) == 0.5


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.zeros((2, 5), dtype=np.float32), "expected floats"),
        (np.zeros((2, 0, 5), dtype=np.float32), "one such row where none has any"),
        (labelled((0, 5, 5, 4, 4), (2, 5, 5, 4, 4)), "[2, 5, 5, 4, 4] at row 0; classes are whole numbers 0..1"),
        (labelled((0.5, 5, 5, 4, 4)), "[0.5, 5, 5, 4, 4] at row 0; classes are whole numbers"),
        (labelled((-0.5, 5, 5, 4, 4)), "-1 for no object"),
        (labelled((-2, 5, 5, 4, 4)), "-1 for no object"),
        (labelled((0, 5, 5, 0, 4)), "width and height are above 0"),
        (labelled((0, np.nan, 5, 4, 4)), "finite number"),
        (labelled((0, 5, 5, 4, 4)), ""),
        (labelled(), ""),
    ],
)
def test_labels_that_cannot_be_are_named(labels: Array, problem: str) -> None:
    found = SCORING.problem(labels, ("disc", "ring"))
    assert problem in found
    assert bool(problem) == bool(found)


def test_the_gateway_reads_and_matches_as_the_build_does() -> None:
    outputs, others = some_answers(60, seed=3), some_answers(60, seed=3)
    others[:, :2] += np.random.default_rng(4).normal(0.0, 1.0, others[:, :2].shape).astype(np.float32)
    scoring = ByBoxes(SCORING.least_score, SCORING.overlap, SCORING.suppression)
    found = read_answers(outputs, SCORING.least_score, SCORING.suppression)
    for row in range(len(outputs)):
        alone = read_boxes(outputs[row], SCORING.least_score, SCORING.suppression)
        real = found.are_real[row]
        assert alone[:, 0].tolist() == found.classes[row][real].tolist()
        assert alone[:, 5] == pytest.approx(found.scores[row][real])
    pairs = zip(readings(outputs, scoring), readings(others, scoring), strict=True)
    assert [matches(one, other, scoring) for one, other in pairs] == SCORING.same(outputs, others).tolist()
    theirs = Detection(SCORING.least_score, SCORING.suppression).compare([others], [outputs])
    assert [pair.loss for pair in theirs] == pytest.approx(SCORING.disagreement(others, outputs))
    assert 0.05 < np.mean([pair.loss for pair in theirs]) < 0.95, "a test of nothing otherwise"


def test_a_variant_is_allowed_what_its_boxes_were_measured_to_differ() -> None:
    full, variant = some_answers(300, seed=5), some_answers(300, seed=5)
    variant[:30, 4:] = 0.0
    labels = SCORING.answer(full)
    found = describe_drift(Seen(full, ()), Seen(variant, ()), Truth(labels, SCORING))
    assert found.agreement == "detection"
    assert found.accuracy == pytest.approx(0.9)
    assert found.allowed is not None
    assert found.allowed.measured == pytest.approx(0.1)
    assert 0.1 < found.allowed.rate < 0.13
    assert describe_drift(None, Seen(full, ()), Truth(labels, SCORING)).allowed is None


def test_nothing_seen_by_both_agrees() -> None:
    nothing = read_answers(np.zeros((2, 6, 4), dtype=np.float32), 0.25, 0.45)
    assert disagreement(nothing, nothing).tolist() == [0.0, 0.0]
    assert are_same(nothing, nothing, 0.5).all()
