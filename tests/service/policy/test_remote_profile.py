from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.variants import LatencyCell, Profile
from service.policy.remote_profile import LearntProfile

ROW_S = 0.002
MANIFEST = Profile(
    tuple(LatencyCell(rows, ROW_S * rows, 1.2 * ROW_S * rows, 1.5 * ROW_S * rows) for rows in (1, 4, 16))
)


def learn(rows: list[int], offset_s: float, speed: float, calls: int = 600, noise: float = 0.0) -> LearntProfile:
    chance, learnt = random.Random(3), LearntProfile(MANIFEST)  # noqa: S311 - a repeatable noise
    for number in range(calls):
        count = rows[number % len(rows)]
        learnt.observe(count, (offset_s + speed * ROW_S * count) * (1.0 + noise * chance.uniform(-1.0, 1.0)))
    return learnt


def test_without_calls_it_is_the_manifest() -> None:
    assert LearntProfile(MANIFEST).profile().at(4).p50_s == pytest.approx(4 * ROW_S)
    assert LearntProfile(MANIFEST).profile().at(16).p95_s == pytest.approx(1.2 * 16 * ROW_S)
    assert LearntProfile(MANIFEST).profile().at(1).p99_s == pytest.approx(1.5 * ROW_S)


@pytest.mark.parametrize(("offset_s", "speed"), [(0.0, 1.0), (0.003, 0.1), (0.001, 4.0), (0.05, 1.0), (0.0, 0.05)])
def test_calls_of_two_sizes_tell_the_network_from_the_compute(offset_s: float, speed: float) -> None:
    learnt = learn([1, 16], offset_s, speed, noise=0.1)
    for rows in (1, 2, 4, 8, 16):
        assert learnt.typical_s(rows) == pytest.approx(offset_s + speed * ROW_S * rows, rel=0.15)


@pytest.mark.parametrize("rows", [1, 4])
def test_calls_of_one_size_are_predicted_and_more_rows_never_less(rows: int) -> None:
    learnt = learn([rows], 0.004, 1.0)
    assert learnt.typical_s(rows) == pytest.approx(0.004 + ROW_S * rows, rel=0.02)
    assert learnt.typical_s(16) >= learnt.typical_s(4) >= learnt.typical_s(1)


def test_a_faster_machine_is_believed_from_calls_of_one_size() -> None:
    assert learn([1], 0.0, 0.1).typical_s(16) == pytest.approx(0.1 * 16 * ROW_S, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(0.0, 10.0)), min_size=1, max_size=60))
def test_whatever_is_seen_the_profile_stays_one(calls: list[tuple[int, float]]) -> None:
    learnt = LearntProfile(MANIFEST)
    for rows, seconds in calls:
        learnt.observe(rows, seconds)
    cells = learnt.profile().cells
    assert all(0.0 < cell.p50_s <= cell.p95_s <= cell.p99_s < 1e3 for cell in cells)
    assert [cell.p50_s for cell in cells] == sorted(cell.p50_s for cell in cells)


def test_the_quantiles_lie_where_they_should() -> None:
    chance, learnt = random.Random(4), LearntProfile(MANIFEST)  # noqa: S311 - a repeatable noise
    above = {"p95_s": 0, "p99_s": 0}
    for call in range(12_000):
        seconds = 0.005 * (1.0 + chance.expovariate(4.0))
        if call >= 2000:
            cell = learnt.profile().at(1)
            above["p95_s"] += seconds > cell.p95_s
            above["p99_s"] += seconds > cell.p99_s
        learnt.observe(1, seconds)
    assert above["p95_s"] / 10_000 == pytest.approx(0.05, abs=0.01)
    assert above["p99_s"] / 10_000 == pytest.approx(0.01, abs=0.004)


def test_one_stall_moves_little_and_a_lasting_change_is_followed() -> None:
    learnt = learn([1, 16], 0.001, 1.0)
    before_s = learnt.typical_s(1)
    learnt.observe(1, 30.0)
    assert learnt.typical_s(1) < 1.2 * before_s
    for number in range(600):
        learnt.observe((1, 16)[number % 2], 3.0 * (0.001 + ROW_S * (1, 16)[number % 2]))
    assert learnt.typical_s(1) == pytest.approx(3.0 * before_s, rel=0.1)
