"""Intervals and tests against published values, scipy, and what must hold of any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from variants.intervals import Z_TWO_SIDED_95, judge, mcnemar, paired_difference, wilson


@pytest.mark.parametrize(("successes", "rows"), [(0, 10), (554, 560), (560, 560), (1, 2)])
def test_wilson_equals_scipy(successes: int, rows: int) -> None:
    expected = binomtest(successes, rows).proportion_ci(method="wilson")
    assert wilson(successes, rows) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_equals_the_exact_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained, 0.5).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_paired_difference_equals_the_published_example() -> None:
    # Fagerland, Lydersen, Laake 2014, airway hyper-responsiveness: 21 pairs, 7 and 1 discordant, Tango's 95 % interval.
    low, high = paired_difference(lost=7, gained=1, rows=21, z=Z_TWO_SIDED_95)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


def test_paired_difference_keeps_its_width_when_no_row_differs() -> None:
    low, high = paired_difference(0, 0, 560)
    assert low == pytest.approx(-(1.6448536269514722**2) / (560 + 1.6448536269514722**2))
    assert high == pytest.approx(-low)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 2000))
def test_paired_difference_encloses_the_estimate_and_mirrors(lost: int, gained: int, rows: int) -> None:
    low, high = paired_difference(lost, gained, rows)
    assert -1 <= low <= (gained - lost) / rows <= high <= 1
    assert paired_difference(gained, lost, rows) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(
    ("lost", "gained", "rows", "margin", "verdict"),
    [
        (0, 0, 560, 0.01, "pass"),
        (0, 0, 560, 0.001, "inconclusive"),
        (6, 2, 560, 0.01, "inconclusive"),
        (60, 2, 560, 0.01, "fail"),
        (10, 10, 100_000, 0.001, "pass"),
    ],
)
def test_judge_decides_only_what_the_rows_can_tell(
    lost: int, gained: int, rows: int, margin: float, verdict: str
) -> None:
    assert judge(lost, gained, rows, margin).verdict == verdict
