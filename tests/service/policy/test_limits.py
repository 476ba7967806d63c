from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.policy.limits import Load, Verdict, earliest_start_s, judge_arrival

CALM = Load(queued=0, max_queued=10, lanes_free_s=(0.0, 0.0), work_before_s=0.0, least_important=0)


def load(queued: int = 0, work_before_s: float = 0.0, least_important: int = 1) -> Load:
    return Load(queued, 10, (0.0, 0.0), work_before_s, least_important)


@pytest.mark.parametrize(
    ("found", "fastest_s", "timeout_s", "criticality", "verdict"),
    [
        (CALM, 0.010, 1.0, 1, Verdict.ADMIT),
        (CALM, 0.010, 0.010, 1, Verdict.ADMIT),
        (CALM, 0.011, 0.010, 1, Verdict.INFEASIBLE),
        (CALM, 0.010, -0.001, 1, Verdict.INFEASIBLE),
        (load(work_before_s=0.18), 0.010, 0.1, 1, Verdict.ADMIT),
        (load(work_before_s=0.20), 0.010, 0.1, 1, Verdict.OVERLOADED),
        (load(work_before_s=9.00), 0.200, 0.1, 1, Verdict.INFEASIBLE),
        (load(queued=9), 0.010, 1.0, 1, Verdict.ADMIT),
        (load(queued=10), 0.010, 1.0, 1, Verdict.FULL),
        (load(queued=10), 0.010, 1.0, 0, Verdict.DISPLACE),
        (load(queued=10, least_important=2), 0.010, 1.0, 1, Verdict.DISPLACE),
        (load(queued=10, least_important=0), 0.010, 1.0, 0, Verdict.FULL),
        (load(queued=10, work_before_s=9.0), 0.010, 1.0, 0, Verdict.OVERLOADED),
    ],
)
def test_judge_arrival_decides(
    found: Load, fastest_s: float, timeout_s: float, criticality: int, verdict: Verdict
) -> None:
    assert judge_arrival(found, fastest_s, timeout_s, criticality) is verdict


def test_wait_is_the_work_shared_by_the_lanes() -> None:
    assert load(work_before_s=0.3).wait_s == pytest.approx(0.15)


def test_judge_arrival_lets_a_request_in_when_a_lane_is_idle_whatever_another_one_runs() -> None:
    found = Load(queued=0, max_queued=10, lanes_free_s=(5.0, 0.0), work_before_s=0.0, least_important=0)
    assert judge_arrival(found, 0.1, 0.12, 1) is Verdict.ADMIT


@pytest.mark.parametrize(
    ("lanes_free_s", "work_s", "start_s"),
    [
        ((0.0,), 0.0, 0.0),
        ((0.3,), 0.2, 0.5),
        ((0.3, 0.0), 0.0, 0.0),
        ((0.3, 0.0), 0.2, 0.2),
        ((0.3, 0.0), 0.5, 0.4),
        ((1.0, 0.0, 1.0), 0.9, 0.9),
        ((1.0, 0.0, 1.0), 4.0, 2.0),
    ],
)
def test_earliest_start_pours_the_work_over_the_lanes(
    lanes_free_s: tuple[float, ...], work_s: float, start_s: float
) -> None:
    assert earliest_start_s(lanes_free_s, work_s) == pytest.approx(start_s)


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=8), st.floats(0.0, 10.0))
def test_earliest_start_is_never_later_than_any_way_to_share_the_work_in_halves(
    free_s: list[float], work_s: float
) -> None:
    greedy = sorted(free_s)
    for _ in range(64):
        greedy[0] += work_s / 64
        greedy.sort()
    assert min(free_s) <= earliest_start_s(free_s, work_s) <= greedy[0] + work_s / 64 + 1e-9


@given(
    st.builds(
        Load,
        queued=st.integers(0, 20),
        max_queued=st.just(10),
        lanes_free_s=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=8).map(tuple),
        work_before_s=st.floats(0.0, 10.0),
        least_important=st.integers(0, 2),
    ),
    st.floats(0.0, 1.0),
    st.floats(-1.0, 2.0),
    st.integers(0, 2),
)
def test_judge_arrival_lets_in_only_who_can_still_be_answered_in_time(
    found: Load, fastest_s: float, timeout_s: float, criticality: int
) -> None:
    verdict = judge_arrival(found, fastest_s, timeout_s, criticality)
    lets_in = verdict in (Verdict.ADMIT, Verdict.DISPLACE)
    in_time = found.wait_s + fastest_s <= timeout_s
    has_place = found.queued < found.max_queued or criticality < found.least_important
    assert lets_in == (in_time and fastest_s <= timeout_s and has_place)
