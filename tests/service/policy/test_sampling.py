"""How many answers are looked at a second time."""

from __future__ import annotations

import pytest

from service.policy.sampling import FEW, choose_hz, choose_most, choose_reversed_share, choose_share


@pytest.mark.parametrize(
    ("share", "rate_hz", "suspicion", "samples", "wanted"),
    [
        (0.01, 80.0, 0.0, FEW, 0.01),  # the policy's
        (0.01, 1000.0, 0.0, FEW, 0.001),  # enough is known: one a second
        (0.01, 1000.0, 0.0, FEW - 1, 0.002),  # little is known: two a second
        (0.01, 10.0, 0.0, FEW, 0.05),  # little traffic: one every two seconds
        (0.01, 10.0, 0.0, 0, 0.2),
        (0.01, 0.1, 0.0, FEW, 1.0),  # never more than all
        (0.01, 0.0, 0.0, FEW, 1.0),  # nothing comes: the first that does
        (0.0, 0.0, 0.0, 0, 0.0),
        (0.01, 20.0, 0.5, FEW, 0.5),  # suspected: ten a second
        (0.01, 500.0, 0.5, FEW, 0.02),
        (0.01, 2000.0, 0.5, FEW, 0.01),  # never less than the policy's
        (0.0, 100.0, 1.0, 0, 0.0),  # off
        (0.5, 100.0, 0.0, FEW, 0.5),
        (0.5, 1000.0, 0.0, FEW, 0.05),  # who wants fifty times the usual share gets fifty a second
    ],
)
def test_share_is_the_policys_and_more_where_little_is_known_or_much_is_suspected(
    share: float, rate_hz: float, suspicion: float, samples: int, wanted: float
) -> None:
    assert choose_share(rate_hz, choose_hz(share, rate_hz, suspicion, samples)) == pytest.approx(wanted)


def test_most_that_is_taken_is_about_twice_what_is_wanted_and_never_nothing() -> None:
    assert choose_most(10.0, 1.0) == 21.0
    assert choose_most(0.0, 1.0) == 1.0


def test_quarantined_variant_is_asked_twice_a_second_and_a_demoted_one_more() -> None:
    assert choose_reversed_share(0.01, 100.0, is_out=True) == pytest.approx(0.02)
    assert choose_reversed_share(0.01, 1000.0, is_out=True) == pytest.approx(0.01)
    assert choose_reversed_share(0.0, 100.0, is_out=True) == 0.0
    assert choose_reversed_share(0.01, 0.0, is_out=True) == 1.0
    assert choose_reversed_share(0.01, 0.1, is_out=True) == 1.0
    assert choose_reversed_share(0.01, 100.0, is_out=False) == pytest.approx(0.1)


def test_share_gives_the_wanted_rate() -> None:
    assert choose_share(200.0, 20.0) == pytest.approx(0.1)
    assert choose_share(5.0, 20.0) == 1.0
    assert choose_share(0.0, 20.0) == 1.0
    assert choose_share(0.0, 0.0) == 0.0


@pytest.mark.parametrize(("suspicion", "samples", "wanted_hz"), [(0.5, FEW, 10.0), (0.0, 0, 2.0), (0.0, FEW, 0.5)])
def test_what_is_wanted_of_a_burst_after_a_pause_does_not_depend_on_the_pause(
    suspicion: float, samples: int, wanted_hz: float
) -> None:
    assert choose_hz(0.01, 1e-9, suspicion, samples) == wanted_hz
    assert choose_hz(0.0, 1e-9, suspicion, samples) == 0.0
