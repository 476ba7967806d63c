from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from loadtests.rollout.endpoints import Endpoints


def test_a_change_is_seen_within_the_lag_by_all() -> None:
    endpoints = Endpoints(5, 10.0, random.Random(0))  # noqa: S311 - a test, no secret
    endpoints.begin("a")
    endpoints.change(100.0, "b", is_there=True)
    seen_at_once = [viewer.look(100.0) for viewer in endpoints.viewers]
    assert all(addresses in (["a"], ["a", "b"]) for addresses in seen_at_once)
    assert ["a"] in seen_at_once
    assert all(viewer.look(110.0) == ["a", "b"] for viewer in endpoints.viewers)


@given(st.integers(0, 1000), st.lists(st.floats(0.0, 5.0), max_size=20))
def test_a_viewer_sees_changes_in_their_order(seed: int, gaps_s: list[float]) -> None:
    endpoints = Endpoints(2, 10.0, random.Random(seed))  # noqa: S311 - a test, no secret
    endpoints.begin("0")
    now_s = 0.0
    for number, gap_s in enumerate(gaps_s):  # as a rolling update of one pod: the next comes, then this one goes
        now_s += gap_s
        endpoints.change(now_s, str(number + 1), is_there=True)
        endpoints.change(now_s, str(number), is_there=False)
    for viewer in endpoints.viewers:
        for tick in range(120):
            assert viewer.look(now_s * tick / 100.0)
        assert viewer.look(now_s + 10.0) == [str(len(gaps_s))]
