from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.policy.drift.adwin import Adwin


@given(st.lists(st.floats(0.4, 0.6), max_size=300))
def test_what_is_kept_is_counted_and_averaged(values: list[float]) -> None:
    window, kept = Adwin(delta=1e-9), list(values)
    for value in values:
        assert not window.add(value)
    assert len(window) == len(kept)
    assert window.mean == pytest.approx(sum(kept) / len(kept) if kept else 0.0)


def test_a_change_cuts_the_window_to_what_came_since() -> None:
    chance, window = np.random.default_rng(0), Adwin()
    before = [window.add(float(chance.random() < 0.05)) for _ in range(1000)]
    after = [window.add(float(chance.random() < 0.5)) for _ in range(300)]
    assert not any(before)
    assert after.index(True) < 100
    assert window.mean == pytest.approx(0.5, abs=0.12)
    assert len(window) < 500


def test_the_window_takes_little_room() -> None:
    window = Adwin(delta=1e-9)
    for place in range(5000):
        window.add(float(place % 2))
    assert len(window) == 5000
    assert len(window._buckets) < 100
