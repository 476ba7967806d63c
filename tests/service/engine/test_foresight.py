"""Who would be late at the lanes, as the door is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.domain.inference import Criticality, Knobs
from service.engine.foresight import Foresight
from service.policy.crowd import Prospect
from service.policy.latency import Handover
from tests.builders import make_request, make_variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.engine.conftest import Bench, ManualClock

RUN_S = 0.010
MANY = 80


@pytest.fixture
def bench(make_bench: Callable[..., Bench], manual_clock: ManualClock) -> Bench:
    return make_bench(variants=[make_variant("full", 0.9, RUN_S)], clock=manual_clock)


def foresight(bench: Bench, after_s: float = 0.0) -> Foresight:
    return Foresight(bench.dispatcher, bench.registry, Handover(after_s=after_s))


def needs_s(found: Foresight, criticality: Criticality = Criticality.NORMAL) -> float:
    """Return the least budget, to a millisecond, with which a newcomer would not be late."""
    budgets_s = (each / 1e3 for each in range(1, 10_000))
    return next(each for each in budgets_s if found.prospect("sums", each, 0.0, criticality) is Prospect.TIMELY)


@pytest.mark.parametrize(("budget_s", "is_crowded"), [(0.001, True), (30.0, False)])
async def test_late_work_makes_a_crowd_and_timely_work_does_not(
    bench: Bench, budget_s: float, is_crowded: bool
) -> None:
    gate = bench.close_gates()
    await bench.occupy(gate)
    found = foresight(bench)
    assert not found.is_crowded()
    await bench.send(*(make_request(knobs=Knobs(budget_s, timeout_s=50.0)) for _ in range(MANY)))
    assert found.is_crowded() is is_crowded


async def test_a_few_late_requests_are_no_crowd_however_long_they_take(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(variants=[make_variant("full", 0.9, 1.0)], clock=manual_clock)
    await bench.occupy(bench.close_gates())
    await bench.send(*(make_request(knobs=Knobs(0.001, timeout_s=59.0)) for _ in range(16)))
    assert not foresight(bench).is_crowded()


async def test_way_is_given_to_a_lane_whose_run_should_be_over_and_to_none_that_rests(bench: Bench) -> None:
    found, gate = foresight(bench), bench.close_gates()
    now_s, long_after_s = bench.clock(), bench.clock() + 60.0
    bench.lanes_wait()
    assert not found.give_way(long_after_s)
    task = await bench.occupy(gate)
    assert not found.give_way(now_s)
    assert found.give_way(long_after_s)
    assert not found.give_way(long_after_s)
    gate.set()
    await task
    await bench.plane.infer(make_request())
    bench.lanes_wait()
    assert not found.give_way(long_after_s)


async def test_newcomer_needs_the_lanes_its_own_run_and_the_time_after_it(bench: Bench) -> None:
    found = foresight(bench, after_s=0.001)
    idle_s = needs_s(found)
    assert idle_s == pytest.approx((RUN_S + 0.001) / 0.8, abs=0.0011)
    await bench.occupy(bench.close_gates())
    await bench.send(*(make_request(knobs=Knobs(1.2 * RUN_S)) for _ in range(4)))
    assert needs_s(found) - idle_s == pytest.approx(5 * RUN_S / 0.8, abs=0.0011)
    assert found.prospect("sums", 0.1, 0.05, Criticality.NORMAL) is Prospect.BEHIND
    assert found.prospect("sums", 0.1, 0.01, Criticality.NORMAL) is Prospect.TIMELY


async def test_important_newcomer_does_not_wait_for_the_others(bench: Bench) -> None:
    await bench.occupy(bench.close_gates())
    await bench.send(*(make_request(knobs=Knobs(1.2 * RUN_S)) for _ in range(10)))
    found = foresight(bench)
    assert needs_s(found, Criticality.NORMAL) - needs_s(found, Criticality.CRITICAL) > 9 * RUN_S


async def test_newcomer_that_names_a_variant_needs_the_time_of_that_one(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    variants = [make_variant("full", 0.9, 0.1), make_variant("small", 0.8, RUN_S)]
    found = foresight(make_bench(variants=variants, clock=manual_clock))
    assert found.prospect("sums", 0.05, 0.0, Criticality.NORMAL) is Prospect.TIMELY
    assert found.prospect("sums--small", 0.05, 0.0, Criticality.NORMAL) is Prospect.TIMELY
    assert found.prospect("sums--full", 0.05, 0.0, Criticality.NORMAL) is Prospect.HOPELESS


async def test_nobody_is_late_for_a_model_that_is_not_here(bench: Bench) -> None:
    assert foresight(bench).prospect("unknown", 0.0, 1.0, Criticality.NORMAL) is Prospect.TIMELY


async def test_who_is_turned_away_counts_as_lost_for_want_of_time(bench: Bench) -> None:
    found = foresight(bench)
    before = bench.model.standing.losses.ratio
    found.lose("unknown")
    assert bench.model.standing.losses.ratio == before
    found.lose("sums", 100)
    assert bench.model.standing.losses.ratio > before + 0.2
