from __future__ import annotations

from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river.drift import ADWIN

from service.policy.drift.adwin import Adwin

CHANGE: Final = 1500
"""Values before the change, and after it."""


def cuts_of_both(before: float, after: float, seed: int) -> tuple[list[int], list[int]]:
    """Return where our window and river's are first cut, [] or one place each, in a stream of zeros and ones."""
    chance = np.random.default_rng(seed)
    stream = np.concatenate([chance.random(CHANGE) < before, chance.random(CHANGE) < after]).astype(float).tolist()
    ours, theirs = Adwin(), ADWIN(clock=1)  # type: ignore[no-untyped-call]  # else it looks at every 32nd value
    found: tuple[list[int], list[int]] = ([], [])
    for place, value in enumerate(stream):
        theirs.update(value)  # type: ignore[no-untyped-call]
        for cuts, was_cut in zip(found, (ours.add(value), theirs.drift_detected), strict=True):
            if was_cut:
                cuts.append(place)
    if not found[0]:
        assert len(ours) == int(theirs.width)
        assert ours.mean == pytest.approx(theirs.estimation)
    return found[0][:1], found[1][:1]


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("before", "after"), [(0.05, 0.5), (0.02, 0.1), (0.1, 0.02), (0.3, 0.6)])
def test_the_window_is_cut_where_rivers_is_after_a_change(before: float, after: float, seed: int) -> None:
    (ours,), (theirs,) = cuts_of_both(before, after, seed)
    assert min(ours, theirs) > CHANGE
    assert abs(ours - theirs) <= 15


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.02, 0.05, 0.5])
def test_neither_window_is_cut_where_nothing_changes(rate: float, seed: int) -> None:
    assert cuts_of_both(rate, rate, seed) == ([], [])
