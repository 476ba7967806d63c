from __future__ import annotations

import numpy as np
import pytest

from service.policy.drift.estimate import together
from variants.drifting import Seen, Truth, describe_drift, fit_logistic, log_odds
from variants.perturbing import MOST_ROWS, perturb, perturbed_places
from variants.scoring import CLASSES, Values
from variants.summarising import describe_inputs

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
ROWS, CLASSES_ = 400, 4


def seen(noise: float, seed: int = 0) -> tuple[Seen, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return logits that know the label less the more ``noise`` there is, and still less on perturbed rows."""
    labels = np.random.default_rng(7).integers(0, CLASSES_, ROWS)
    chance = np.random.default_rng([9, seed])

    def logits(known: np.ndarray[tuple[int], np.dtype[np.int64]], amount: float) -> Array:
        clear = 3.0 * np.eye(CLASSES_)[known]
        return np.asarray(clear + chance.normal(0.0, amount, clear.shape), dtype=np.float32)

    perturbed = labels[perturbed_places(ROWS)]
    return Seen(logits(labels, noise), tuple(logits(perturbed, noise * worse) for worse in (1.0, 1.5, 2.5))), labels


def test_full_is_allowed_nothing_and_calibrated() -> None:
    full, labels = seen(1.0)
    found = describe_drift(None, full, Truth(labels, CLASSES))
    assert found.allowed is None
    assert found.calibration is not None
    assert found.accuracy == pytest.approx(float((full.clean.argmax(1) == labels).mean()))
    chance = 1.0 / (1.0 + np.exp(-(found.calibration.intercept + found.calibration.slope * log_odds(full.clean))))
    assert chance.mean() == pytest.approx(found.accuracy, abs=0.01)


def test_a_variant_is_allowed_what_it_was_measured_to_differ_and_as_much_as_chance_adds() -> None:
    (full, labels), (variant, _) = seen(0.8), seen(0.9, seed=1)
    allowed = describe_drift(full, variant, Truth(labels, CLASSES)).allowed
    assert allowed is not None
    assert allowed.measured == pytest.approx(float((full.clean.argmax(1) != variant.clean.argmax(1)).mean()))
    assert allowed.measured < allowed.rate < allowed.measured + 0.05
    assert allowed.slope is not None
    assert allowed.slope < 0.0, "less is allowed where full is sure"


def test_the_threshold_leaves_as_many_rows_below_as_are_wrong() -> None:
    full, labels = seen(1.2)
    found = describe_drift(None, full, Truth(labels, CLASSES))
    assert found.calibration is not None
    assert (log_odds(full.clean) >= found.calibration.threshold).mean() == pytest.approx(found.accuracy, abs=0.005)


def test_an_overconfident_shift_widens_what_estimates_are_trusted_by() -> None:
    full, labels = seen(1.0)
    sure_and_wrong = np.roll(full.clean[perturbed_places(ROWS)], 1, axis=1)
    plain = describe_drift(None, full, Truth(labels, CLASSES)).calibration
    worse = describe_drift(
        None, Seen(full.clean, (*full.perturbed, sure_and_wrong)), Truth(labels, CLASSES)
    ).calibration
    assert plain is not None
    assert worse is not None
    assert worse.error_slope > 2 * plain.error_slope


def test_bins_of_confidence_are_about_equal() -> None:
    full, labels = seen(1.0)
    found = describe_drift(None, full, Truth(labels, CLASSES)).log_odds
    assert found is not None
    assert sum(found.counts) == ROWS
    assert max(found.counts) <= 1.5 * min(found.counts)


def test_probabilities_are_told_from_logits() -> None:
    full, labels = seen(1.0)
    powers = np.exp(full.clean)
    chances = Seen((powers / powers.sum(1, keepdims=True)).astype(np.float32), ())
    found = describe_drift(None, chances, Truth(labels, CLASSES))
    assert found.output_form == "probabilities"
    assert found.calibration is not None
    assert found.calibration.error_slope == 1.0, "without perturbed rows nothing is known of shifts"


def test_values_are_allowed_their_relative_error() -> None:
    truth = np.linspace(-2.0, 2.0, 100, dtype=np.float32)[:, None]
    full, variant = Seen(truth, ()), Seen(truth + np.float32(0.1), ())
    found = describe_drift(full, variant, Truth(truth, Values(0.2)))
    assert (found.agreement, found.accuracy, found.calibration) == ("regression", 1.0, None)
    assert found.allowed is not None
    assert found.allowed.measured == pytest.approx(
        0.1 * (1.0 / np.maximum(np.abs(truth), found.scale)).mean(), abs=1e-3
    )
    assert found.allowed.slope is None


def test_a_logistic_finds_what_made_the_data() -> None:
    chance = np.random.default_rng(3)
    values = chance.normal(0.0, 2.0, 20_000)
    outcomes = chance.random(20_000) < 1.0 / (1.0 + np.exp(-(0.5 - 1.5 * values)))
    assert fit_logistic(values, outcomes, (0.0, 0.0)) == pytest.approx((0.5, -1.5), abs=0.1)


def test_the_combination_of_chances_is_the_gateways() -> None:
    from variants.drifting import _together  # noqa: PLC0415 - the twin of a public function

    chance = np.random.default_rng(4)
    full, variant, agrees = chance.random(50), chance.random(50), chance.random(50) < 0.5
    assert _together(full, variant, agrees) == pytest.approx(together(full, variant, agrees))


def test_perturbed_rows_are_repeatable_and_stay_in_range() -> None:
    rows = np.random.default_rng(5).random((300, 1, 8, 8)).astype(np.float32)
    first, second = perturb(rows, 1), perturb(rows, 1)
    assert len(first) == 14
    for one, other in zip(first, second, strict=True):
        assert one.dtype == np.float32
        assert one.shape == (MOST_ROWS, 1, 8, 8)
        assert np.array_equal(one, other)
        assert not np.array_equal(one, rows[perturbed_places(300)])
        assert rows.min() <= one.min() <= one.max() <= rows.max()


def test_words_and_tokens_are_not_perturbed_nor_summarised() -> None:
    tokens = np.ones((50, 4), dtype=np.int64)
    assert perturb(tokens, 0) == ()
    assert describe_inputs("text", np.array([b"word"] * 50, dtype=object)) is None


def test_inputs_that_never_change_have_no_reference() -> None:
    assert describe_inputs("x", np.ones((100, 6), dtype=np.float32)) is None
    assert describe_inputs("x", np.ones((5, 6), dtype=np.float32)) is None


def test_whitened_summaries_are_of_unit_size() -> None:
    rows = np.random.default_rng(6).normal(size=(300, 1, 8, 8)).astype(np.float32)
    found = describe_inputs("image", rows)
    assert found is not None
    directions = len(found.whitening[0])
    assert np.mean(found.distances) == pytest.approx(directions, rel=0.4)
    assert len(found.model_dump_json()) < 6000
