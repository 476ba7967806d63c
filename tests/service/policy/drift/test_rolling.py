from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.policy.drift.rolling import RollingMean, wilson
from variants.intervals import wilson as wilson_of_the_build


@given(st.lists(st.floats(0.0, 1.0), max_size=50), st.integers(1, 20), st.integers(0, 20))
def test_the_mean_is_of_the_last_values(values: list[float], size: int, kept: int) -> None:
    mean = RollingMean(size)
    for value in values:
        mean.add(value)
    last = values[-size:]
    assert (len(mean), mean.interval.count) == (len(last), len(last))
    assert mean.interval.value == pytest.approx(sum(last) / len(last) if last else 0.5, abs=1e-9)
    mean.keep_last(kept)
    assert len(mean) == min(kept, len(last))


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_is_wilsons(right: int, rows: int) -> None:
    right = min(right, rows)
    found = wilson(right, rows)
    assert (found.low, found.high) == pytest.approx(wilson_of_the_build(right, rows))
