from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.policy.drift.classification import MOST_LOG_ODDS, Classification
from variants.drifting import log_odds as log_odds_of_the_build

LOGITS = arrays(np.float32, (4, 3), elements=st.floats(-50, 50, width=32))


def softmax(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def test_a_pair_says_whether_the_class_is_the_same_and_how_far_probabilities_lie_apart() -> None:
    full, variant = np.log([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]), np.log([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    same, other = Classification().compare([full], [variant])
    assert (same.loss, other.loss) == (0.0, 1.0)
    assert [same.distance, other.distance] == pytest.approx([0.1, 0.5])
    assert same.margin == pytest.approx(0.3)
    assert same.full_log_odds == pytest.approx(np.log(0.7 / 0.3))
    assert same.log_odds == pytest.approx(np.log(0.6 / 0.4))


@given(LOGITS)
def test_equal_answers_agree_wholly(logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    for pair in Classification().compare([logits], [logits.copy()]):
        assert pair.loss == 0.0
        assert pair.distance == pytest.approx(0.0, abs=1e-5)


@given(LOGITS)
def test_probabilities_are_compared_as_their_logits_are(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    by_logits = Classification().log_odds([logits])
    by_probabilities = Classification("probabilities").log_odds([softmax(logits)])
    assert by_probabilities == pytest.approx(by_logits, abs=0.05)


@given(LOGITS)
def test_the_build_knows_the_same_log_odds(logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    wide = np.concatenate([logits, -np.ones_like(logits)])  # no row of it is taken for probabilities
    assert log_odds_of_the_build(wide) == pytest.approx(Classification().log_odds([wide]), abs=1e-9)


def test_damaged_outputs_are_limited_and_agree_with_nothing() -> None:
    broken = np.array([[np.nan, np.nan], [np.inf, 0.0], [1e30, -1e30]])
    pairs = Classification().compare([np.tile([1.0, 0.0], (3, 1))], [broken])
    assert [pair.loss for pair in pairs] == [1.0, 0.0, 0.0]
    assert np.isfinite([tuple(pair) for pair in pairs]).all()
    assert max(abs(pair.log_odds) for pair in pairs) <= MOST_LOG_ODDS


def test_one_class_is_always_sure() -> None:
    (pair,) = Classification().compare([np.zeros((1, 1))], [np.ones((1, 1))])
    assert (pair.loss, pair.margin, pair.log_odds) == (0.0, 1.0, MOST_LOG_ODDS)
