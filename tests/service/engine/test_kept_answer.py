"""A request whose second stage is cut short ends with the answer of its first one: in time, and never with an error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from service.domain.errors import Draining
from service.domain.inference import Criticality, Knobs
from tests.service.engine.cascading import SURE, Cascading, value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from tests.service.engine.conftest import Bench, ManualClock


@pytest.fixture
def cascading(bench: Bench) -> Cascading:
    return Cascading(bench)


async def test_the_kept_answer_is_given_when_the_lane_stays_busy_until_it_is_too_late(cascading: Cascading) -> None:
    ticket, before, gate = await cascading.waiting_stage(budget_s=0.3)
    outcome = await ticket.done  # the gate is still closed
    assert (outcome.variant, outcome.is_cascaded) == ("small", False)
    assert value(outcome.outputs) == pytest.approx(0.4)
    assert cascading.bench.clock() < ticket.waiting.due_s
    gate.set()
    await before.done
    assert cascading.batches() == (1, 1)


async def test_the_kept_answer_is_given_when_the_second_stage_takes_longer_than_foreseen(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    cascading = Cascading(make_bench(clock=manual_clock))
    ticket, gate = await cascading.second_stage(budget_s=0.2)
    manual_clock.now_s += 0.2
    outcome = await ticket.done  # the gate is still closed
    assert (outcome.variant, outcome.is_cascaded) == ("small", False)
    gate.set()
    after = cascading.ticket(SURE)
    cascading.submit(after)
    assert (await after.done).variant == "small"
    assert await ticket.done is outcome


async def test_the_kept_answer_is_given_at_once_when_a_second_stage_could_not_be_on_time(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    cascading = Cascading(make_bench(clock=manual_clock))
    _, small = cascading.hold()
    ticket = cascading.ticket(budget_s=0.023)  # 22 ms for both stages
    cascading.submit(ticket)
    await small.reached()
    manual_clock.now_s += 0.0031
    small.set()
    assert (await ticket.done).variant == "small"
    assert cascading.batches() == (0, 1)


async def test_a_cascade_does_not_begin_where_both_stages_would_be_late(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    cascading = Cascading(make_bench(clock=manual_clock))
    ticket = cascading.ticket(budget_s=0.0215)
    cascading.submit(ticket)
    assert (await ticket.done).variant == "full"
    assert cascading.batches() == (1, 0)


async def test_the_kept_answer_is_given_when_the_second_stage_would_make_those_behind_late(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    cascading = Cascading(make_bench(clock=manual_clock))
    _, small = cascading.hold()
    ticket = cascading.ticket(budget_s=0.06)
    cascading.submit(ticket)
    await small.reached()
    behind = [
        cascading.ticket(SURE, 0.061, knobs=Knobs(variant="full")) for _ in range(3)
    ]  # as much as there is time for
    cascading.submit(*behind)
    cascading.full.gate.set()
    small.set()
    outcomes = [await one.done for one in (ticket, *behind)]
    assert [outcome.variant for outcome in outcomes] == ["small", "full", "full", "full"]
    assert not any(outcome.is_late for outcome in outcomes)
    assert cascading.batches() == (3, 1)


def always(inputs: Mapping[str, NDArray[Any]]) -> bool:
    del inputs
    return True


async def test_the_kept_answer_is_given_when_the_second_stage_fails(cascading: Cascading) -> None:
    cascading.full.fails = always
    ticket = cascading.ticket()
    cascading.submit(ticket)
    outcome = await ticket.done
    assert (outcome.variant, outcome.is_cascaded, outcome.is_fallback) == ("small", False, False)
    assert cascading.batches() == (1, 1)


async def test_another_variant_answers_when_the_first_stage_fails(cascading: Cascading) -> None:
    cascading.small.fails = always
    ticket = cascading.ticket()
    cascading.submit(ticket)
    outcome = await ticket.done
    assert (outcome.variant, outcome.is_cascaded, outcome.is_fallback) == ("full", False, True)


async def test_a_client_that_leaves_during_the_second_stage_leaves_the_lane_working(cascading: Cascading) -> None:
    ticket, gate = await cascading.second_stage()
    ticket.done.cancel()
    cascading.bench.dispatcher.cancel(ticket)
    gate.set()
    after = cascading.ticket(SURE)
    cascading.submit(after)
    assert (await after.done).variant == "small"
    assert ticket.done.cancelled()


async def test_a_client_that_leaves_while_its_second_stage_waits_has_nothing_more_computed(
    cascading: Cascading,
) -> None:
    ticket, before, gate = await cascading.waiting_stage()
    ticket.done.cancel()
    cascading.bench.dispatcher.cancel(ticket)
    assert cascading.bench.queued == 0
    gate.set()
    await before.done
    assert cascading.batches() == (1, 1)


async def test_a_client_that_leaves_during_the_first_stage_has_no_second_one(cascading: Cascading) -> None:
    _, small = cascading.hold()
    ticket = cascading.ticket()
    cascading.submit(ticket)
    await small.reached()
    ticket.done.cancel()
    cascading.bench.dispatcher.cancel(ticket)
    small.set()
    after = cascading.ticket(SURE)
    cascading.submit(after)
    await after.done
    assert cascading.batches() == (0, 2)


@pytest.mark.parametrize("is_running", [False, True])
async def test_the_kept_answer_is_given_when_the_hard_deadline_passes(
    cascading: Cascading, *, is_running: bool
) -> None:
    if is_running:
        ticket, gate = await cascading.second_stage()
    else:
        ticket, _, gate = await cascading.waiting_stage()
    cascading.bench.dispatcher.expire(ticket)
    assert (await ticket.done).variant == "small"
    assert (cascading.bench.events.expired, cascading.bench.queued) == ([], 0)
    gate.set()


async def test_the_kept_answer_is_given_when_the_lanes_close(cascading: Cascading) -> None:
    ticket, before, gate = await cascading.waiting_stage()
    cascading.bench.dispatcher.close()
    assert (await ticket.done).variant == "small"
    gate.set()
    await before.done


async def test_the_kept_answer_is_given_when_running_work_is_abandoned(cascading: Cascading) -> None:
    ticket, before, gate = await cascading.waiting_stage()
    cascading.bench.dispatcher.abandon()
    assert (await ticket.done).variant == "small"
    with pytest.raises(Draining):
        await before.done
    gate.set()


async def test_the_kept_answer_is_given_when_the_lanes_close_during_the_first_stage(cascading: Cascading) -> None:
    _, small = cascading.hold()
    ticket = cascading.ticket()
    cascading.submit(ticket)
    await small.reached()
    cascading.bench.dispatcher.close()
    small.set()
    assert (await ticket.done).variant == "small"


async def test_the_kept_answer_is_given_when_its_place_goes_to_somebody_more_important(cascading: Cascading) -> None:
    ticket, before, gate = await cascading.waiting_stage(knobs=Knobs(criticality=Criticality.SHEDDABLE))
    others = [cascading.ticket(SURE) for _ in range(4)]
    cascading.submit(*others)
    critical = cascading.ticket(SURE, knobs=Knobs(criticality=Criticality.CRITICAL))
    cascading.submit(critical)
    assert (await ticket.done).variant == "small"
    assert cascading.bench.events.shed == []
    gate.set()
    await asyncio.gather(*[one.done for one in (before, critical, *others)])


async def test_the_kept_answer_is_given_when_the_big_variant_is_evicted_meanwhile(cascading: Cascading) -> None:
    _, small = cascading.hold()
    ticket = cascading.ticket()
    cascading.submit(ticket)
    await small.reached()
    cascading.bench.dispatcher.parking.retire(cascading.model, "full")
    small.set()
    assert (await ticket.done).variant == "small"
    assert cascading.batches() == (0, 1)


async def test_an_evicted_variant_is_used_on_by_a_second_stage_that_waits(cascading: Cascading) -> None:
    ticket, before, gate = await cascading.waiting_stage()
    parking = cascading.bench.dispatcher.parking
    parking.retire(cascading.model, "full")
    assert parking.is_using(cascading.model, {"full"})
    gate.set()
    await before.done
    assert (await ticket.done).variant == "full"


async def test_a_second_stage_is_no_work_that_a_newcomer_would_have_to_wait_for(cascading: Cascading) -> None:
    ticket, before, gate = await cascading.waiting_stage()
    running_s = cascading.bench.dispatcher.desk.lanes[0].free_s - cascading.bench.clock()
    assert cascading.bench.dispatcher.wait_s() <= max(0.0, running_s)
    gate.set()
    await asyncio.gather(ticket.done, before.done)
