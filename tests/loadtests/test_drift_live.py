"""The arithmetic of the live drift benchmark: differences of neighbouring turns, and when its bars are kept."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.drift_live import Turn, compare, is_kept


def document(shadow_cpu: float = 0.004, low_s: float = -0.001, *taken_s: float | None) -> dict[str, Any]:
    costs = [{"shadow_cpu": shadow_cpu, "added_p99_s": {"median": 0.001, "low": low_s, "high": 0.003}}]
    return {"costs": costs, "quarantines": [{"taken_s": found} for found in taken_s or (4.0,)]}


def test_what_the_watch_adds_is_the_median_difference_of_neighbouring_turns() -> None:
    # The machine grows slower from pair to pair; only the third pair differs by more than one point.
    bases = [0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70]
    unwatched = [Turn(cpu, 0.0, cpu / 10.0) for cpu in bases]
    watched = [Turn(cpu + (0.05 if cpu == 0.30 else 0.01), 0.004, cpu / 10.0 + 0.002) for cpu in bases]
    found = compare(watched, unwatched)
    assert found["added_cpu"]["median"] == pytest.approx(0.01)
    assert found["added_cpu"]["low"] <= found["added_cpu"]["median"] <= found["added_cpu"]["high"]
    assert found["added_p99_s"]["median"] == pytest.approx(0.002)
    assert (found["shadow_cpu"], found["p99_s"]) == (0.004, pytest.approx(0.04))


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (document(), True),
        (document(0.011), False),  # shadow runs take over 1 % of CPU
        (document(0.004, 0.0005), False),  # all of the interval is above nothing: the p99 has grown
        (document(0.004, -0.001, 4.0, 31.0), False),
        (document(0.004, -0.001, 4.0, None), False),  # never found
    ],
)
def test_bars_are_kept_or_missed(found: dict[str, Any], *, kept: bool) -> None:
    assert is_kept(found) is kept
