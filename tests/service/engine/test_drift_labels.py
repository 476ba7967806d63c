"""What is kept of answers of every task, and what labels say of them."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.domain.drift import ByBoxes, ByClass, ByValue
from service.domain.tensors import TensorSpec
from service.domain.verdicts import Label
from service.engine.drift.labels import predictions_of, score_of
from service.engine.drift.references import ModelReference
from service.engine.drift.taps import KeptAnswer
from service.policy.drift.classification import Classification
from service.policy.drift.detection import Detection
from service.policy.drift.regression import Regression
from tests.builders import make_model

if TYPE_CHECKING:
    from service.domain.drift import Scoring
    from service.policy.drift.pairs import Agreement

BOXES = ByBoxes(least_score=0.25, overlap=0.5, suppression=0.45)
DISC, RING = [0, 10.0, 10.0, 8.0, 8.0], [1, 30.0, 30.0, 8.0, 8.0]
AGREEMENTS: dict[type[Scoring], Agreement] = {
    ByClass: Classification("logits"),
    ByValue: Regression(),
    ByBoxes: Detection(),
}


def boxes(*found: list[float]) -> np.ndarray[Any, Any]:
    """Return one row, (1, 4 + 2, places), of a detector that sees these boxes, of a model with two classes."""
    scores = [[0.9, 0.1] if kind == 0 else [0.1, 0.9] for kind, *_ in found]
    places = [[*box[1:], *score] for box, score in zip(found, scores, strict=True)]
    return np.array(places or [[0.0] * 6]).T[None]


def score(output: np.ndarray[Any, Any], scoring: Scoring, *values: Any) -> float | None:  # noqa: ANN401 - as JSON has them
    """Keep an answer as the store does, and return what a label with these values says of it."""
    reference = ModelReference(AGREEMENTS[type(scoring)], {}, scoring=scoring)
    info = replace(make_model(), labels=("disc", "ring"))
    (kept,) = predictions_of([KeptAnswer("a", "full", output)], info, reference, 0.0)
    return score_of(Label("a", values), kept.predicted, info, scoring)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((2.0, 7.0), 1.0),
        ((2.4, 7.6), 0.5),
        (([2.0], [9]), 0.5),
        ((2.0,), None),
        (("2.0", 7.0), None),
        (([2.0, 7.0], [1.0, 1.0]), None),
        ((10**400, 7.0), None),
        ((inf, 7.0), None),
    ],
)
def test_a_value_is_right_within_the_tolerance(values: tuple[Any, ...], expected: float | None) -> None:
    assert score(np.array([[2.1], [7.1]]), ByValue(0.4), *values) == expected


def test_all_values_of_a_row_must_be_right() -> None:
    answer = np.array([[1.0, 2.0]])
    assert score(answer, ByValue(0.1), [1.0, 2.0]) == 1.0
    assert score(answer, ByValue(0.1), [1.0, 2.2]) == 0.0
    assert score(np.array([[np.nan, 2.0]]), ByValue(0.1), [1.0, 2.0]) == 0.0
    assert score(answer, ByValue(0.1), 1.0) is None


def test_boxes_are_right_where_all_are_seen_and_nothing_else() -> None:
    moved = [0, 11.0, 10.0, 8.0, 8.0]
    assert score(boxes(DISC, RING), BOXES, [RING, moved]) == 1.0
    assert score(boxes(DISC), BOXES, [DISC, RING]) == 0.0
    assert score(boxes(DISC, RING), BOXES, [DISC]) == 0.0
    assert score(boxes(DISC), BOXES, [[1, *DISC[1:]]]) == 0.0


def test_nothing_to_be_seen_is_a_label_too() -> None:
    assert score(boxes(), BOXES, []) == 1.0
    assert score(boxes(DISC), BOXES, []) == 0.0
    rows = np.concatenate([boxes(DISC), boxes([0, 0.0, 0.0, 0.0, 0.0])])
    rows[1, 4:] = 0.0
    assert score(rows, BOXES, [DISC], []) == 1.0


@pytest.mark.parametrize(
    "value",
    [
        3,
        "disc",
        [DISC[:4]],
        [[9, 1, 1, 1, 1]],
        [["up", 1, 1, 1, 1]],
        [[0, "x", 1, 1, 1]],
        [[0, "1", 1, 1, 1]],
        [[0, 1, 1, 0, 1]],
        [[0, 1, 1, 1, -1]],
        [[0, inf, 1, 1, 1]],
        [[0.5, 1, 1, 1, 1]],
    ],
)
def test_what_is_no_list_of_boxes_does_not_fit(value: object) -> None:
    assert score(boxes(DISC), BOXES, value) is None


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (1.0, 1.0), ("ring", 1.0), (0, 0.0), (1.5, None), (2, None)])
def test_a_class_is_a_whole_number_or_a_name(value: object, expected: float | None) -> None:
    two = replace(make_model(), outputs=(TensorSpec("y", "FP32", (-1, 2)),), labels=("disc", "ring"))
    reference = ModelReference(Classification("logits"), {}, scoring=ByClass())
    (kept,) = predictions_of([KeptAnswer("a", "full", np.array([[0.0, 9.0]]))], two, reference, 0.0)
    assert score_of(Label("a", (value,)), kept.predicted, two, ByClass()) == expected


def test_answers_of_many_rows_are_kept_each_with_its_own() -> None:
    reference = ModelReference(Classification("logits"), {}, scoring=ByClass())
    outputs = [np.array([[0.0, 9.0]]), np.array([[5.0, 0.0], [0.0, 1.0]])]
    answers = [KeptAnswer(str(place), "full", output) for place, output in enumerate(outputs)]
    first, second = predictions_of(answers, make_model(), reference, 0.0)
    assert (first.predicted.tolist(), second.predicted.tolist()) == ([[1.0]], [[0.0], [1.0]])
    assert first.confidence[0] > second.confidence[0] > second.confidence[1] > 0.5


def test_nothing_is_kept_where_no_label_could_call_it_right() -> None:
    unknown = ModelReference(Regression(), {}, scoring=None)
    assert list(predictions_of([KeptAnswer("a", "full", np.ones((1, 1)))], make_model(), unknown, 0.0)) == []
    picture = ModelReference(Regression(), {}, scoring=ByValue(0.1))
    assert list(predictions_of([KeptAnswer("a", "full", np.ones((1, 5000)))], make_model(), picture, 0.0)) == []
