"""What counts as right, on answers small enough to check by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from variants.evaluation import Relatives, TestSet, describe_reference, evaluate
from variants.losses import ClassObjectives, ValueLoss, ValueObjectives, objectives_of
from variants.probabilities import as_logits, softmax
from variants.recipes.digits import RECIPE as DIGITS
from variants.recipes.regression import RECIPE as REGRESSION
from variants.scoring import CLASSES, Classes, Values, scoring_of

TRUTH = np.array([0.0, 1.0, 2.0, 3.0], dtype=np.float32)
OUTPUTS = np.array([[0.4], [1.6], [2.0], [1.0]], dtype=np.float32)


def test_a_value_is_right_within_the_tolerance() -> None:
    assert Values(0.5).right(OUTPUTS, TRUTH).tolist() == [True, False, True, False]
    assert Values(0.7).right(OUTPUTS, TRUTH[:, None]).tolist() == [True, True, True, False]


def test_a_row_of_values_is_right_where_all_of_them_are() -> None:
    truth = np.zeros((2, 3), dtype=np.float32)
    outputs = np.array([[0.1, 0.1, 0.1], [0.1, 0.1, 9.0]], dtype=np.float32)
    assert Values(0.5).right(outputs, truth).tolist() == [True, False]


def test_other_measures_of_values_are_the_textbooks() -> None:
    beside = Values(1.0).beside(OUTPUTS, TRUTH)
    squares = 0.4**2 + 0.6**2 + 2.0**2
    assert beside["r2"] == pytest.approx(1 - squares / 5.0)
    assert beside["mean absolute error"] == pytest.approx(3.0 / 4)
    assert beside["root mean square error"] == pytest.approx((squares / 4) ** 0.5)


def test_divergence_of_values_is_a_share_of_their_variance() -> None:
    reference = TRUTH[:, None]
    assert Values(1.0).divergence(reference, reference) == 0.0
    assert Values(1.0).divergence(reference, reference + 0.5) == pytest.approx(0.25 / 1.25)
    assert Values(1.0).divergence(np.ones_like(reference), reference) > 1e6, (
        "nothing to explain: any error is too large"
    )


def test_probabilities_are_told_from_logits() -> None:
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)
    assert np.allclose(softmax(as_logits(probabilities)), probabilities, atol=1e-4)
    logits = np.array([[0.25, 0.75], [3.0, 0.0]], dtype=np.float32)
    assert as_logits(logits) is logits
    assert CLASSES.divergence(probabilities, np.log(np.maximum(probabilities, 1e-5))) == pytest.approx(0.0, abs=1e-6)


def test_evaluation_of_values_has_no_nats_and_no_calibration() -> None:
    test = TestSet("within 0.5", "four rows", "0" * 64, TRUTH, Values(0.5))
    accuracy = evaluate(OUTPUTS, Relatives(TRUTH[:, None], TRUTH[:, None]), test, None)
    assert (accuracy.value, accuracy.lost, accuracy.gained, accuracy.flips) == (0.5, 2, 0, 2)
    assert (accuracy.kl_to_full, accuracy.kl_to_parent, accuracy.calibration_error) == (None, None, None)
    assert accuracy.beside["r2"] < 1.0


def test_reference_of_values_has_no_classes() -> None:
    reference = describe_reference({"x": TRUTH[:, None]}, OUTPUTS, ())
    assert (reference.confidence, reference.predictions) == (None, {})


@pytest.mark.parametrize(
    ("scoring", "labels", "said"),
    [
        (Classes(), np.array([0.5]), "expected one class number for each row"),
        (Classes(), np.array([2]), "labels 2..2; 2 labels allow 0..1"),
        (Values(1.0), np.array([1]), "expected floating-point numbers"),
        (Values(1.0), np.array([1.0, np.inf]), "no finite number, at row 1"),
    ],
)
def test_labels_that_cannot_be_scored_are_named(scoring: Any, labels: Any, said: str) -> None:  # noqa: ANN401 - cases
    assert said in scoring.problem(labels, ("no", "yes"))


def test_a_recipe_trains_for_what_it_is_scored_by() -> None:
    assert scoring_of(DIGITS) == CLASSES
    assert objectives_of(DIGITS) == ClassObjectives()
    assert objectives_of(REGRESSION) == ValueObjectives(1.5)


def test_value_loss_mixes_label_and_teacher_in_units_of_the_tolerance() -> None:
    values, labels, teacher = torch.tensor([[4.0]]), torch.tensor([0.0]), torch.tensor([[2.0]])
    assert ValueLoss(2.0)(values, labels, None).item() == pytest.approx(1.5)  # two tolerances: 2 - 0.5
    assert ValueLoss(2.0, 0.25)(values, labels, teacher).item() == pytest.approx(0.25 * 0.5 + 0.75 * 1.5)
