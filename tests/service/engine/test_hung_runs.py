"""Runs that hang: their lanes go on, their requests are moved once at most, and the stuck threads do no harm."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import BackendFailed, DeadlineExceeded
from service.domain.inference import Knobs, Reason
from service.engine.hung_runs import LOOK_EVERY_S, waited_for_core_s
from tests.builders import LADDER, make_request, make_variant
from tests.service.engine.conftest import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.inference import InferenceRequest
    from tests.service.engine.conftest import Bench, ManualClock

FAST = tuple(make_variant(item.name, item.accuracy, item.profile.cells[0].p50_s / 100) for item in LADDER)
LOOKS = 6
"""After the first look, which only sees what runs: more than a second, even less what a thread waits for a core."""


def request(value: float = 1.0, **knobs: object) -> InferenceRequest:
    return make_request(value, knobs=Knobs(30.0, **knobs))  # type: ignore[arg-type] # a test's own spelling


@pytest.fixture
def bench(make_bench: Callable[..., Bench], manual_clock: ManualClock) -> Bench:
    return make_bench(variants=FAST, clock=manual_clock)


def hang(bench: Bench, *variants: str) -> Gate:
    """Hold the runs of some variants until the gate that is returned is set."""
    gate = Gate()
    for name in variants:
        bench.stubs[name].gate = gate
    return gate


def look(bench: Bench, times: int = LOOKS, step_s: float = LOOK_EVERY_S) -> None:
    """Let time pass, and look as often as the gateway does."""
    for _ in range(times):
        bench.clock.now_s += step_s  # type: ignore[attr-defined] # the bench of this file has a clock to move
        bench.lanes.look()


def stuck_threads(bench: Bench) -> list[threading.Thread]:
    return bench.lanes.stuck


async def let_end(bench: Bench, gate: Gate) -> None:
    """Let the stuck threads come back, and wait for their end."""
    threads = stuck_threads(bench)
    gate.set()
    for thread in threads:
        await asyncio.to_thread(thread.join, 60)
    assert not any(thread.is_alive() for thread in threads)


async def test_a_run_that_hangs_is_given_up_and_its_request_goes_to_another_variant(bench: Bench) -> None:
    gate = hang(bench, "full")
    (task,) = await bench.send(request())
    await gate.reached()
    bench.lanes.look()
    look(bench)
    response = await task
    assert (response.answer.variant, response.answer.reason) == ("quantized", Reason.FALLBACK)
    assert bench.events.replaced == ["full"]
    await let_end(bench, gate)
    assert bench.is_at_rest()
    assert (await bench.plane.infer(request())).answer.variant == "full"


async def test_what_a_stuck_thread_returns_in_the_end_is_thrown_away(bench: Bench) -> None:
    gate = hang(bench, "full")
    (task,) = await bench.send(request())
    await gate.reached()
    bench.lanes.look()
    look(bench)
    await task
    reports = len(bench.events.runs)
    await let_end(bench, gate)
    assert len(bench.events.runs) == reports
    assert len(bench.events.finished) == 1


async def test_a_request_that_hangs_twice_gets_an_error(bench: Bench) -> None:
    gate = hang(bench, *bench.stubs)
    (task,) = await bench.send(request())
    for _ in range(2):
        await gate.reached()
        bench.lanes.look()
        look(bench)
    with pytest.raises(BackendFailed, match="a run of variant 'quantized' hung"):
        await task
    assert [len(stub.batches) for stub in bench.stubs.values()] == [1, 1, 0, 0]
    await let_end(bench, gate)
    assert bench.is_at_rest()


async def test_a_pinned_request_that_hangs_gets_an_error_at_once(bench: Bench) -> None:
    gate = hang(bench, "full")
    (task,) = await bench.send(request(variant="full"))
    await gate.reached()
    bench.lanes.look()
    look(bench)
    with pytest.raises(BackendFailed, match="hung"):
        await task


async def test_a_variant_whose_runs_hang_again_is_taken_out(bench: Bench) -> None:
    gate = hang(bench, "full")
    for _ in range(2):  # each counts twice: it hung, and another variant succeeded
        (task,) = await bench.send(request())
        await gate.reached()
        bench.lanes.look()
        look(bench)
        await task
    assert ("sums", "full") in bench.events.failed
    assert (await bench.plane.infer(request())).answer.variant == "quantized"
    assert len(bench.stubs["full"].batches) == 2


async def test_no_more_threads_are_left_behind_than_two_for_each_lane(bench: Bench) -> None:
    gate = hang(bench, "full")
    for _ in range(3):
        (task,) = await bench.send(request(variant="full"))
        await gate.reached()
        bench.lanes.look()
        look(bench)
        bench.model.health["full"].failures = 0
    assert len(stuck_threads(bench)) == 2
    assert not task.done()
    gate.set()
    assert (await task).answer.variant == "full"  # the lane was not replaced, so its thread delivers
    await let_end(bench, gate)


async def test_a_run_is_not_given_up_within_a_second_or_twenty_times_what_was_predicted(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    slow = tuple(make_variant(item.name, item.accuracy, 0.5) for item in LADDER)
    bench = make_bench(variants=slow, clock=manual_clock)
    gate = hang(bench, *bench.stubs)
    (task,) = await bench.send(request(timeout_s=60.0))
    await gate.reached()
    bench.lanes.look()
    look(bench, times=19)  # 9.5 s; ten are allowed
    assert not bench.events.replaced
    gate.set()
    await task


async def test_a_process_that_stood_still_does_not_take_its_runs_for_hung(bench: Bench) -> None:
    gate = hang(bench, "full")
    (task,) = await bench.send(request())
    await gate.reached()
    bench.lanes.look()
    look(bench, times=1, step_s=25.0)
    assert not bench.events.replaced
    gate.set()
    assert (await task).answer.variant == "full"


async def test_time_that_a_thread_waits_for_a_core_does_not_count(bench: Bench) -> None:
    gate = hang(bench, "full")
    (task,) = await bench.send(request())
    await gate.reached()
    hung, waited_s = bench.dispatcher.hung, 0.0
    for _ in range(20):
        bench.clock.now_s += LOOK_EVERY_S  # type: ignore[attr-defined] # as above
        waited_s += LOOK_EVERY_S
        assert not hung.look(bench.clock(), {0: waited_s})
    gate.set()
    await task


async def test_a_request_whose_deadline_passes_meanwhile_is_not_run_again(bench: Bench) -> None:
    gate = hang(bench, "full")
    (task,) = await bench.send(make_request(knobs=Knobs(30.0, timeout_s=0.05)))
    await gate.reached()
    with pytest.raises(DeadlineExceeded):
        await task
    bench.lanes.look()
    look(bench)
    assert bench.events.replaced == ["full"]
    assert not bench.stubs["quantized"].batches
    assert bench.is_at_rest()


def test_a_thread_that_is_gone_has_waited_for_nothing() -> None:
    assert waited_for_core_s(0) == 0.0
    assert waited_for_core_s(threading.get_native_id()) >= 0.0
