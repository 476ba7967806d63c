from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.variants import LatencyCell, Profile
from tests.builders import make_model

SECONDS = st.floats(1e-6, 10.0)


def profile(*times: tuple[int, float]) -> Profile:
    return Profile(tuple(LatencyCell(size, p50_s, 2 * p50_s, 3 * p50_s) for size, p50_s in times))


@st.composite
def rising_profiles(draw: st.DrawFn) -> Profile:
    sizes = sorted(draw(st.sets(st.integers(1, 64), min_size=1, max_size=6)))
    times = sorted(draw(st.lists(SECONDS, min_size=len(sizes), max_size=len(sizes))))
    return profile(*zip(sizes, times, strict=True))


def test_profile_returns_a_measured_cell_as_it_is() -> None:
    assert profile((1, 0.010), (8, 0.080)).at(8) == LatencyCell(8, 0.080, 0.160, 0.240)


def test_profile_is_linear_between_measured_sizes() -> None:
    cell = profile((1, 0.010), (5, 0.050)).at(2)
    assert (cell.batch_size, cell.p50_s, cell.p95_s, cell.p99_s) == pytest.approx((2, 0.020, 0.040, 0.060))


def test_profile_is_proportional_beyond_the_last_size() -> None:
    cell = profile((1, 0.010), (4, 0.020)).at(8)
    assert cell.batch_size == 8
    assert cell.p50_s == pytest.approx(0.040)


def test_profile_takes_the_first_cell_below_the_first_size() -> None:
    assert profile((4, 0.020)).at(1) == LatencyCell(1, 0.020, 0.040, 0.060)


@given(rising_profiles(), st.integers(1, 64))
def test_profile_stays_within_its_neighbours_where_times_rise(measured: Profile, size: int) -> None:
    cell = measured.at(size)
    below = [item for item in measured.cells if item.batch_size <= size]
    above = [item for item in measured.cells if item.batch_size >= size]
    assert cell.batch_size == size
    slack = 1.0 + 1e-9
    assert not below or cell.p50_s * slack >= below[-1].p50_s
    assert not above or cell.p50_s <= above[0].p50_s * slack


@given(rising_profiles(), st.integers(1, 100), st.integers(1, 100))
def test_profile_never_falls_with_the_batch_where_times_rise(measured: Profile, one: int, other: int) -> None:
    smaller, larger = sorted((one, other))
    assert measured.at(smaller).p99_s <= measured.at(larger).p99_s * (1.0 + 1e-9)


@given(rising_profiles(), st.integers(1, 100))
def test_profile_keeps_the_order_of_quantiles(measured: Profile, size: int) -> None:
    cell = measured.at(size)
    assert cell.p50_s <= cell.p95_s <= cell.p99_s


def test_model_finds_its_variants_by_name() -> None:
    model = make_model()
    assert [variant and variant.name for variant in map(model.variant, ("quantized", "absent"))] == ["quantized", None]


def test_model_lists_each_tier_once_in_order() -> None:
    model = make_model((*make_model().variants, *make_model().variants))
    assert model.tiers == ("full", "quantized", "pruned-quantized", "distilled-quantized")
