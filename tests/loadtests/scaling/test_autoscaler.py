from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.scaling.autoscaler import SYNC_S, Autoscaler, Behavior, Rules, read_rules

AT_ONCE = Behavior(0.0, 1e6, 1.0, 1000)


def rules(up: Behavior = AT_ONCE, down: Behavior = AT_ONCE, **targets: float) -> Rules:
    return Rules(2, 100, targets or {"busy": 0.5}, up, down)


def test_replicas_follow_the_ratio_of_value_and_target() -> None:
    assert Autoscaler(rules(), 10).decide(0.0, {"busy": 0.8}) == 16
    assert Autoscaler(rules(), 10).decide(0.0, {"busy": 0.31}) == 7


def test_values_within_a_tenth_of_the_target_change_nothing() -> None:
    assert Autoscaler(rules(), 10).decide(0.0, {"busy": 0.549}) == 10
    assert Autoscaler(rules(), 10).decide(0.0, {"busy": 0.451}) == 10


def test_the_signal_that_wants_most_decides() -> None:
    scaler = Autoscaler(rules(busy=0.5, queue=8.0), 10)
    assert scaler.decide(0.0, {"busy": 0.1, "queue": 16.0}) == 20


def test_replicas_stay_within_their_bounds() -> None:
    assert Autoscaler(rules(), 90).decide(0.0, {"busy": 1.0}) == 100
    assert Autoscaler(rules(), 3).decide(0.0, {"busy": 0.0}) == 2


def test_what_was_wanted_within_the_window_holds_replicas_up() -> None:
    scaler = Autoscaler(rules(down=Behavior(300.0, 100.0, 1.0)), 20)
    for sync in range(20):  # 0 to 285 s
        assert scaler.decide(sync * SYNC_S, {"busy": 0.5 if sync == 0 else 0.25}) == 20
    assert scaler.decide(315.0, {"busy": 0.25}) == 10


def test_replicas_come_as_fast_as_the_policies_allow() -> None:
    scaler = Autoscaler(rules(up=Behavior(0.0, 100.0, 30.0, 4)), 2)
    assert scaler.decide(0.0, {"busy": 1.0}) == 4
    found = [scaler.decide(sync * SYNC_S, {"busy": 5.0}) for sync in range(1, 6)]
    assert found == [6, 8, 12, 16, 24]  # at most 4, or as many as there were 30 s before


def test_replicas_go_no_faster_than_a_share_a_minute() -> None:
    scaler = Autoscaler(rules(down=Behavior(0.0, 20.0, 60.0)), 50)
    counts = [scaler.decide(sync * SYNC_S, {"busy": 0.01}) for sync in range(8)]
    assert counts == [40, 40, 40, 40, 32, 32, 32, 32]


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60), st.integers(2, 100))
def test_replicas_never_leave_the_bounds(values: list[float], first: int) -> None:
    scaler = Autoscaler(rules(Behavior(0.0, 100.0, 30.0, 4), Behavior(300.0, 20.0, 60.0)), first)
    for sync, value in enumerate(values):
        before = scaler.replicas
        now = scaler.decide(sync * SYNC_S, {"busy": value})
        assert 2 <= now <= 100
        assert now >= before or value < 0.5


def test_rules_are_read_from_the_charts_values() -> None:
    values: dict[str, Any] = {
        "signals": {"queueDepth": {"enabled": True, "target": 8}, "laneBusyRatio": {"enabled": False, "target": 0.8}},
        "scaleUp": {"stabilizationSeconds": 0, "percent": 100, "pods": 4, "periodSeconds": 30},
        "scaleDown": {"stabilizationSeconds": 300, "percent": 20, "periodSeconds": 60},
    }
    found = read_rules(values, least=2, most=9)
    assert found.targets == {"queueDepth": 8.0}
    assert (found.up.most(3), found.up.most(10), found.down.most(10)) == (4, 10, 2)
    values["signals"]["queueDepth"]["enabled"] = False
    with pytest.raises(ValueError, match="no signal"):
        read_rules(values, least=2, most=9)
