"""Evaluation on logits small enough to check by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from variants.evaluation import Relatives, TestSet, calibration_error, describe_reference, evaluate, histogram
from variants.probabilities import mean_kl, softmax

LABELS = np.array([0, 0, 1, 1], dtype=np.int64)
FULL = np.array([[4, 0], [4, 0], [0, 4], [4, 0]], dtype=np.float32)  # right, right, right, wrong
OTHER = np.array([[4, 0], [0, 4], [0, 4], [0, 4]], dtype=np.float32)  # right, wrong, right, right
TEST = TestSet("accuracy", "four rows", "0" * 64, LABELS)


def test_evaluate_counts_what_was_lost_and_gained() -> None:
    accuracy = evaluate(OTHER, Relatives(FULL, parent=FULL), TEST, None)
    assert (accuracy.value, accuracy.ratio_to_full) == (0.75, 1.0)
    assert (accuracy.flips, accuracy.lost, accuracy.gained, accuracy.mcnemar_p) == (2, 1, 1, 1.0)
    assert [item.verdict for item in accuracy.non_inferiority] == ["inconclusive", "inconclusive"]


def test_evaluate_finds_no_difference_of_full_from_itself() -> None:
    accuracy = evaluate(FULL, Relatives(FULL, parent=None), TEST, None)
    assert (accuracy.flips, accuracy.kl_to_full, accuracy.ratio_to_full) == (0, 0.0, 1.0)


def test_evaluate_does_not_judge_full_against_itself() -> None:
    accuracy = evaluate(FULL, Relatives(FULL, parent=None), TEST, None)
    assert (accuracy.non_inferiority, accuracy.kl_to_parent) == ((), None)


def test_evaluate_measures_the_divergence_from_the_parent_beside_that_from_full() -> None:
    accuracy = evaluate(OTHER, Relatives(FULL, parent=OTHER), TEST, None)
    assert accuracy.kl_to_parent == 0.0
    assert accuracy.kl_to_full is not None
    assert accuracy.kl_to_full > 0.1


def test_mean_kl_is_the_textbook_value() -> None:
    reference = np.log(np.array([[0.5, 0.5]], dtype=np.float32))
    other = np.log(np.array([[0.25, 0.75]], dtype=np.float32))
    assert mean_kl(reference, other) == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3), abs=1e-6)


def test_softmax_does_not_overflow() -> None:
    assert softmax(np.array([[1e4, 0.0]], dtype=np.float32)).tolist() == [[1.0, 0.0]]


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    logits = np.log(np.array([[0.8, 0.2]] * 4, dtype=np.float32))  # 80 % sure, right half of the time
    assert calibration_error(logits, LABELS) == pytest.approx(0.3, abs=1e-6)


def test_histogram_counts_every_value_once() -> None:
    found = histogram(np.array([0.0, 0.1, 0.9, 1.0]), (0.0, 1.0), 2)
    assert (found.edges, found.counts) == ((0.0, 0.5, 1.0), (2, 2))


def test_reference_describes_inputs_confidence_and_predictions() -> None:
    inputs = np.array([[0.0], [1.0], [2.0], [3.0]], dtype=np.float32)
    reference = describe_reference({"x": inputs}, OTHER, ("no", "yes"))
    assert reference.predictions == {"no": 1, "yes": 3}
    assert sum(reference.inputs["x"].counts) == 4
    assert reference.confidence is not None
    assert sum(reference.confidence.counts) == 4
