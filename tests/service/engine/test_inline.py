"""What may run on the event loop's thread, and what may no longer."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import DeadlineExceeded, Draining
from service.domain.inference import Knobs
from tests.builders import make_request, make_variant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from service.engine.backends.stub import StubBackend
    from tests.service.engine.conftest import Bench, ManualClock

SHORT = (make_variant("full", 0.9, 1e-5),)


def note_threads(stub: StubBackend, *, clock: ManualClock | None = None, seconds: float = 0.0) -> list[int]:
    """Return a list to which every run adds its thread; a run lets ``seconds`` of the clock pass."""
    threads: list[int] = []

    def note(_: Mapping[str, np.ndarray]) -> bool:
        threads.append(threading.get_ident())
        if clock is not None:
            clock.now_s += seconds
        return False

    stub.fails = note
    return threads


async def test_a_model_of_dynamic_shape_never_runs_inline(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=SHORT, inline_s=1.0)
    shape = replace(bench.model.info.inputs[0], shape=(-1, -1))
    bench.model.info = replace(bench.model.info, inputs=(shape,))
    threads = note_threads(bench.stubs["full"])
    await bench.plane.infer(make_request())
    assert threads != [threading.get_ident()]


async def test_a_run_that_stalled_the_event_loop_sends_the_next_ones_to_a_lane_for_a_while(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(variants=SHORT, inline_s=1.0, clock=manual_clock)
    here = threading.get_ident()
    threads = note_threads(bench.stubs["full"], clock=manual_clock, seconds=0.05)
    await bench.plane.infer(make_request())
    await bench.plane.infer(make_request())
    manual_clock.now_s += 61.0
    bench.lanes_wait()
    await bench.plane.infer(make_request())
    assert [thread == here for thread in threads] == [True, False, True]


async def test_a_run_on_the_event_loop_that_ends_after_the_deadline_is_no_answer(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(variants=SHORT, inline_s=1.0, clock=manual_clock)
    note_threads(bench.stubs["full"], clock=manual_clock, seconds=5.0)
    with pytest.raises(DeadlineExceeded):
        await bench.plane.infer(make_request(knobs=Knobs(timeout_s=1.0)))
    assert (bench.events.expired, bench.events.finished) == (["running"], [])


async def test_abandoning_refuses_what_runs_and_what_waits(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=SHORT)
    gate = bench.close_gates()
    running = await bench.occupy(gate)
    (waiting,) = await bench.send(make_request())
    bench.dispatcher.abandon()
    for task in (running, waiting):
        with pytest.raises(Draining):
            await task
    gate.set()


async def test_requests_of_one_turn_are_computed_together_on_the_callers_thread(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(variants=SHORT, inline_s=1.0)
    threads = note_threads(bench.stubs["full"])
    bench.lanes_wait()
    for first_alone in (True, False):  # after a turn with company the first one waits for the others too
        bench.stubs["full"].batches.clear()
        responses = await asyncio.gather(*(bench.plane.infer(make_request()) for _ in range(5)))
        assert bench.stubs["full"].batches == ([1, 4] if first_alone else [5])
        assert [response.answer.batch_size for response in responses][1:] == [4 if first_alone else 5] * 4
    await bench.plane.infer(make_request())
    assert set(threads) == {threading.get_ident()}
    assert bench.is_at_rest()


async def test_requests_of_one_turn_that_are_long_together_go_to_a_lane(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=SHORT, inline_s=1.5e-5)
    threads = note_threads(bench.stubs["full"])
    bench.lanes_wait()
    await asyncio.gather(*(bench.plane.infer(make_request()) for _ in range(5)))
    assert sum(bench.stubs["full"].batches) == 5
    assert (threads[0], set(threads[1:]) & {threading.get_ident()}) == (threading.get_ident(), set())


async def test_request_that_leaves_its_turn_is_not_computed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=SHORT, inline_s=1.0)
    bench.lanes_wait()
    _, leaving, staying = await bench.send(*(make_request() for _ in range(3)))
    leaving.cancel()
    await staying
    assert bench.stubs["full"].batches == [1, 1]
    assert bench.is_at_rest()


async def test_a_backend_whose_time_depends_on_its_data_never_runs_inline(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=SHORT, inline_s=1.0)
    bench.stubs["full"].is_steady = False
    threads = note_threads(bench.stubs["full"])
    await bench.plane.infer(make_request())
    assert threads != [threading.get_ident()]
