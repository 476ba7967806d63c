"""Who is let in, who is refused, and how a request ends early: deadlines, overload, displacement, cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import (
    DeadlineExceeded,
    Overloaded,
)
from service.domain.inference import Criticality, Knobs
from service.domain.policy_file import ModelPolicy
from tests.builders import make_request, make_variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.inference import InferenceRequest, InferenceResponse
    from tests.service.engine.conftest import Bench, ManualClock

PATIENT = Knobs(budget_s=30.0)


def result(response: InferenceResponse) -> float:
    return float(response.outputs[0].data[0, 0])


def request(value: float = 1.0, budget_s: float = 30.0, **knobs: object) -> InferenceRequest:
    return make_request(value, knobs=Knobs(budget_s, **knobs))  # type: ignore[arg-type] # a test's own spelling


async def test_a_deadline_that_passes_while_waiting_ends_the_request_and_nothing_is_computed(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    (task,) = await bench.send(request(timeout_s=0.05))
    with pytest.raises(DeadlineExceeded, match=r"within the deadline of 50\.000 ms"):
        await task
    assert (bench.events.expired, bench.queued) == (["waiting"], 0)
    gate.set()
    await first
    assert sum(len(stub.batches) for stub in bench.stubs.values()) == 1


async def test_a_hard_deadline_leaves_time_for_the_answer_as_a_budget_does(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(clock=manual_clock)
    just_the_run_s = bench.model.costs(manual_clock.now_s).of("full", 1) + 50e-6
    for knobs in (Knobs(just_the_run_s), Knobs(30.0, just_the_run_s)):
        response = await bench.plane.infer(make_request(knobs=knobs))
        assert response.answer.variant == "quantized"


async def test_a_deadline_that_passes_while_running_ends_the_request_and_throws_its_result_away(bench: Bench) -> None:
    gate = bench.close_gates()
    (task,) = await bench.send(request(timeout_s=0.05))
    await gate.reached()
    with pytest.raises(DeadlineExceeded):
        await task
    assert (bench.events.expired, bench.plane.inflight) == (["running"], 0)
    gate.set()
    assert result(await bench.plane.infer(make_request())) == 4.0
    await bench.told()
    assert len(bench.events.finished) == 1


async def test_a_request_that_can_no_longer_meet_its_deadline_is_never_started(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(variants=[make_variant("full", 0.9, 0.2)], clock=manual_clock)
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    (task,) = await bench.send(request(timeout_s=30.0))
    manual_clock.now_s += 29.9
    gate.set()
    with pytest.raises(DeadlineExceeded, match="could not answer within the deadline"):
        await task
    await first
    assert (bench.stubs["full"].batches, bench.events.expired) == ([1], ["waiting"])


async def test_a_request_behind_too_much_work_is_refused_with_when_to_try_again(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(variants=[make_variant("full", 0.9, 0.100)])
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    tasks = await bench.send(*(request(budget_s=20.0) for _ in range(10)))
    with pytest.raises(Overloaded, match="has 10 requests waiting") as refusal:
        await bench.plane.infer(request(budget_s=30.0, timeout_s=0.5, criticality=Criticality.SHEDDABLE))
    assert refusal.value.retry_after_s == pytest.approx(1.1)
    assert bench.events.shed == ["sheddable overloaded"]
    gate.set()
    await asyncio.gather(first, *tasks)


async def test_a_request_that_is_due_before_what_waits_is_let_in_ahead_of_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=[make_variant("full", 0.9, 0.100)])
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    tasks = await bench.send(*(request(value=index + 1.0, budget_s=30.0) for index in range(60)))
    (urgent,) = await bench.send(request(value=99.0, budget_s=4.0, timeout_s=5.0))  # six seconds of work wait
    gate.set()
    await asyncio.gather(first, urgent, *tasks)
    assert bench.events.shed == []


async def test_a_full_queue_refuses_equals_and_displaces_the_less_critical(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(policy=ModelPolicy(max_queued=2, safety_margin_ratio=0.0))
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    normal, sheddable = await bench.send(request(), request(criticality=Criticality.SHEDDABLE))
    with pytest.raises(Overloaded, match="at most 2"):
        await bench.plane.infer(request(criticality=Criticality.SHEDDABLE))
    (critical,) = await bench.send(request(criticality=Criticality.CRITICAL))
    with pytest.raises(Overloaded, match="displaced by a more critical request"):
        await sheddable
    assert (bench.queued, bench.events.shed) == (2, ["sheddable queue_full", "sheddable displaced"])
    gate.set()
    assert [result(item) for item in await asyncio.gather(first, normal, critical)] == [4.0] * 3
    assert bench.events.expired == []


async def test_cancelling_a_waiting_request_frees_its_place_and_computes_nothing(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    (task,) = await bench.send(request())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (bench.queued, bench.plane.inflight, bench.events.refused) == (0, 1, ["CancelledError"])
    gate.set()
    await first
    assert sum(len(stub.batches) for stub in bench.stubs.values()) == 1


async def test_cancelling_a_running_request_leaves_the_lane_working(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert result(await bench.plane.infer(make_request())) == 4.0


async def test_late_requests_wait_while_the_event_loop_has_no_time_to_spare(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(clock=manual_clock)
    turns = bench.dispatcher.loop_turns
    await bench.plane.infer(request())  # the lane has just had its share
    turns.pressed_until_s = float("inf")
    (late,) = await bench.send(request(budget_s=1e-9))
    await bench.plane.infer(request())
    bench.lanes_wait()
    assert (late.done(), bench.queued) == (False, 1)
    turns.pressed_until_s = float("-inf")
    manual_clock.now_s += 0.001
    await bench.plane.infer(request())
    assert (await late).answer.budget_met is False


async def test_late_requests_get_a_small_share_of_lanes_that_have_nothing_else(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(clock=manual_clock)
    bench.dispatcher.loop_turns.pressed_until_s = float("inf")
    await bench.plane.infer(request())
    for _ in range(3):
        (late,) = await bench.send(request(budget_s=1e-9))
        bench.lanes_wait()
        assert bench.queued == 1
        manual_clock.now_s += 10.0
        (another,) = await bench.send(request(budget_s=1e-9))
        await late
        another.cancel()
        await asyncio.gather(another, return_exceptions=True)


async def test_timely_newcomer_displaces_a_late_one_from_a_full_queue(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(policy=ModelPolicy(max_queued=1))
    gate = bench.close_gates()
    running = await bench.occupy(gate)
    (late,) = await bench.send(request(budget_s=1e-9))
    (timely,) = await bench.send(request())
    (another_late,) = await bench.send(request(budget_s=1e-9))
    for refused in (late, another_late):
        with pytest.raises(Overloaded):
            await refused
    gate.set()
    await asyncio.gather(running, timely)


async def test_time_at_the_door_is_part_of_a_requests_time(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(clock=manual_clock)
    turns = bench.dispatcher.loop_turns
    turns.begin(manual_clock.now_s - 0.003)
    response = await bench.plane.infer(request())
    assert response.answer.total_s == pytest.approx(0.003)
