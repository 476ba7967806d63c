"""The event loop gives way to a lane that should be done, once for each run, until it computes again."""

from __future__ import annotations

import math
import threading

from service.engine.giving_way import GivingWay

LONG_S = 600.0


def test_nobody_is_waited_for_who_computes_or_rests() -> None:
    way = GivingWay(2, LONG_S)
    assert not way.give(1.0)
    way.computes(0, 2.0)
    way.computes(1, math.inf)
    assert not way.give(1.0)


def test_lane_that_is_overdue_is_waited_for_once_and_not_for_long() -> None:
    way = GivingWay(2, 0.001)
    way.computes(1, 2.0)
    assert way.give(2.0)
    assert not way.give(3.0)
    way.computes(1, 4.0)
    assert way.give(4.0)


def test_lane_whose_run_hangs_is_waited_for_once_whatever_the_others_do() -> None:
    way = GivingWay(2, 0.001)
    way.computes(0, 1.0)
    way.computes(1, 1.5)
    assert [way.give(2.0) for _ in range(3)] == [True, True, False]
    for _ in range(3):
        way.computes(1, 3.0)
        assert not way.give(2.0)


def test_wait_ends_when_the_lane_computes_again() -> None:
    way, answers = GivingWay(1, LONG_S), list[bool]()
    way.computes(0, 2.0)
    loop = threading.Thread(target=lambda: answers.append(way.give(2.0)), daemon=True)
    loop.start()
    for _ in range(3000):  # it may not wait yet when the lane is at its next run
        way.computes(0, 2.0)
        loop.join(0.01)
        if not loop.is_alive():
            break
    assert answers == [True]
