"""A cascade is published where the small variant knows which of its answers are doubtful, and nowhere else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from variants.cascading import FEWEST_ROWS, MOST_KEPT, SHARES, Answers, find_cascades

ROWS = 1000
MARGINS = np.arange(ROWS, dtype=np.float32)
Rows = NDArray[np.bool_]


def answers(name: str, p50_s: float, wrong: object, margins: NDArray[np.float32] = MARGINS) -> Answers:
    """Return a variant of three classes that has these margins on either split and is wrong on these test rows."""
    lowest = np.full_like(margins, -9.0)
    outputs = np.stack([lowest + 2.0, lowest, margins - 7.0], axis=1)  # (rows, 3)
    right = np.ones(len(margins), dtype=np.bool_)
    right[wrong] = False  # type: ignore[call-overload]  # a list, a slice or an array
    return Answers(name, p50_s, outputs, outputs, right)


BIG = answers("big", 0.010, [])


def test_threshold_is_the_validation_quantile_and_the_rest_is_measured_on_test() -> None:
    validation = np.stack([np.zeros(100), -np.arange(100)], axis=1).astype(np.float32)  # margins 0..99
    measured = np.arange(200, dtype=np.float32) * 0.4  # margins 0..79.6, of which 25 are below 9.9
    test = np.stack([measured, np.zeros(200, dtype=np.float32)], axis=1)
    wrong = np.arange(200) < 25
    small = Answers("small", 0.001, validation, test, ~wrong)
    big = Answers("big", 0.010, validation, test, np.arange(200) != 199)
    (cascade,) = find_cascades([small, big])
    assert (cascade.variant, cascade.escalate_to) == ("small", "big")
    assert cascade.margin == pytest.approx(9.9)
    assert cascade.calibrated_ratio == pytest.approx(0.1)
    assert cascade.escalated_ratio == pytest.approx(25 / 200)
    assert cascade.accuracy == 1.0
    assert (cascade.lost, cascade.gained) == (0, 25)
    assert cascade.low < 1.0 == cascade.high


def test_row_at_the_threshold_keeps_the_first_answer() -> None:
    margins = np.repeat(np.array([0.0, 5.0], dtype=np.float32), [90, 910])
    (cascade,) = find_cascades([answers("small", 0.001, slice(0, 90), margins), BIG])
    assert (cascade.margin, cascade.escalated_ratio) == (5.0, 0.09)


def test_no_cascade_where_the_margin_says_nothing_about_errors() -> None:
    small = answers("small", 0.001, slice(5, None, 10))  # one error in ten rows, whatever the margin
    assert find_cascades([small, BIG]) == ()


@pytest.mark.parametrize(("errors", "is_kept"), [(2, False), (4, True)])
def test_gain_of_a_row_or_two_is_noise(errors: int, is_kept: bool) -> None:
    small = answers("small", 0.001, slice(0, errors))
    assert bool(find_cascades([small, BIG])) is is_kept


def test_gain_below_a_tenth_of_a_point_is_left_out_however_sure() -> None:
    margins = np.arange(20_000, dtype=np.float32)
    few, many = (answers("small", 0.001, slice(0, errors), margins) for errors in (15, 40))
    big = answers("big", 0.010, [], margins)
    assert find_cascades([few, big]) == ()
    assert find_cascades([many, big]) != ()


def test_only_a_cheaper_variant_escalates_and_not_to_a_worse_one() -> None:
    small = answers("small", 0.001, slice(0, 50))
    other = answers("other", 0.0009, slice(500, 550))  # as accurate, wrong elsewhere: the two together are right
    assert {cascade.variant for cascade in find_cascades([small, other])} <= {"other"}
    assert find_cascades([small, answers("worse", 0.010, slice(50, 150))]) == ()


def test_escalating_to_the_dearer_of_two_equals_is_left_out() -> None:
    small = answers("small", 0.001, slice(0, 50))
    cascades = find_cascades([small, BIG, answers("dear", 0.100, [])])
    assert {cascade.escalate_to for cascade in cascades} == {"big"}


def test_every_cascade_lies_above_the_mixtures_of_all_others() -> None:
    small = answers("small", 0.001, slice(0, 200))
    middle = answers("middle", 0.002, slice(0, 40), MARGINS)
    trio = [small, middle, BIG]
    p50_s = {one.name: one.p50_s for one in trio}
    cascades = find_cascades(trio)
    places = [(p50_s[c.variant] + c.escalated_ratio * p50_s[c.escalate_to], c.accuracy) for c in cascades]
    assert len(cascades) >= 2
    assert len(cascades) <= MOST_KEPT
    corners = [(0.001, 0.8), *places, (0.010, 1.0)]
    slopes = [(after[1] - one[1]) / (after[0] - one[0]) for one, after in pairwise(corners)]
    assert places == sorted(places)
    assert slopes == sorted(slopes, reverse=True)


def test_share_of_too_few_validation_rows_sets_no_threshold() -> None:
    def on(rows: int) -> Answers:
        margins = np.linspace(0, ROWS, rows, dtype=np.float32)
        held_out = np.stack([margins, np.zeros_like(margins)], axis=1)
        small = answers("small", 0.001, slice(0, 20))
        return Answers(small.name, small.p50_s, held_out, small.test, small.right)

    (tightest,) = find_cascades([on(FEWEST_ROWS * 50), BIG])
    assert tightest.calibrated_ratio == pytest.approx(SHARES[0])
    (looser,) = find_cascades([on(FEWEST_ROWS * 10), BIG])
    assert looser.calibrated_ratio == pytest.approx(0.1)


def test_outputs_without_a_margin_give_no_cascade() -> None:
    outputs = np.zeros((ROWS, 1), dtype=np.float32)
    one_class = Answers("small", 0.001, outputs, outputs, BIG.right)
    assert find_cascades([one_class, BIG]) == ()
    unknown = answers("small", 0.001, slice(0, 50), np.full(ROWS, np.nan, dtype=np.float32))
    assert find_cascades([unknown, BIG]) == ()


def test_one_variant_alone_has_none_to_escalate_to() -> None:
    assert find_cascades([BIG]) == ()
