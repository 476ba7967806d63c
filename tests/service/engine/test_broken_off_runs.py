"""Runs that nobody waits for any more: broken off, or not begun; and nobody is blamed for them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.domain.errors import BackendFailed, DeadlineExceeded, Draining
from service.domain.inference import Knobs
from service.domain.tensors import TensorSpec
from service.domain.variants import LatencyCell, Profile
from service.engine.backends.backend import Stop
from service.engine.backends.onnx import OnnxBackend
from service.engine.backends.stub import StubBackend
from service.engine.hung_runs import LOOK_EVERY_S
from tests.builders import make_request, make_variant, many_nodes_onnx, sums_onnx
from tests.service.engine.cascading import SURE, Cascading
from tests.service.engine.conftest import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from tests.service.engine.conftest import Bench, ManualClock

X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 1))
INPUTS = {"x": np.ones((1, 4), dtype=np.float32)}
PREDICTED_S = 0.010
TOOK_S = 0.020
MANY_TURNS = 100_000_000
"""Of a loop in the graph: they take about a minute."""
PATIENT = Knobs(30.0)


class LongRuns:
    """ONNX Runtime with runs that are not over before they are broken off; each moves the clock first."""

    is_steady = True

    def __init__(self, clock: ManualClock, took_s: float) -> None:
        self._backend = OnnxBackend(many_nodes_onnx(MANY_TURNS), [X], [Y], {})
        self._clock = clock
        self.took_s = took_s
        self._begun = threading.Semaphore(0)
        self.stops: list[Stop | None] = []

    def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
        self._clock.now_s += self.took_s
        self.stops.append(stop)
        self._begun.release()
        return self._backend.run(inputs, stop)

    def are_stopped(self) -> bool:
        return all(stop is not None and stop.is_set for stop in self.stops)

    def begun(self) -> None:
        """Return when one more run has begun; the event loop stands meanwhile."""
        self._begun.acquire()


@pytest.fixture
def bench(make_bench: Callable[..., Bench], manual_clock: ManualClock) -> Bench:
    cells = (LatencyCell(1, *[PREDICTED_S] * 3), LatencyCell(8, *[PREDICTED_S * 1.1] * 3))
    full = replace(make_variant("full", 0.9, PREDICTED_S), profile=Profile(cells))
    return make_bench(variants=[full, make_variant("small", 0.8, PREDICTED_S / 2)], clock=manual_clock)


def lengthen(bench: Bench, manual_clock: ManualClock, took_s: float = TOOK_S) -> LongRuns:
    """Let the full variant's runs take too long."""
    backend = LongRuns(manual_clock, took_s)
    bench.model.backends = {**bench.stubs, "full": backend}
    return backend


async def begin(bench: Bench, backend: LongRuns, knobs: Knobs = PATIENT) -> asyncio.Task[Any]:
    (task,) = await bench.send(make_request(knobs=knobs))
    backend.begun()
    return task


def test_onnx_run_with_a_way_to_stop_is_as_any_other() -> None:
    (outputs,) = OnnxBackend(many_nodes_onnx(3), [X], [Y], {}).run(INPUTS, Stop())
    assert outputs.tolist() == [[4.0]]


@pytest.mark.parametrize("content", [sums_onnx(), many_nodes_onnx(3)])
def test_onnx_run_that_is_stopped_before_it_begins_ends_at_its_first_node(content: bytes) -> None:
    backend, stop = OnnxBackend(content, [X], [Y], {}), Stop()
    stop.set()
    with pytest.raises(BackendFailed, match="terminate"):
        backend.run(INPUTS, stop)
    assert backend.run(INPUTS)[0].tolist() == [[4.0]]


def test_onnx_run_that_is_over_is_stopped_by_nothing() -> None:
    backend, stop = OnnxBackend(sums_onnx(), [X], [Y], {}), Stop()
    backend.run(INPUTS, stop)
    stop.set()
    assert backend.run(INPUTS, Stop())[0].tolist() == [[4.0]]


@pytest.mark.parametrize("ends_by", ["its client", "its deadline"])
async def test_a_run_is_broken_off_when_the_last_who_waits_for_it_has_gone(
    bench: Bench, manual_clock: ManualClock, ends_by: str
) -> None:
    backend = lengthen(bench, manual_clock)
    task = await begin(bench, backend, replace(PATIENT, timeout_s=0.3) if ends_by == "its deadline" else PATIENT)
    if ends_by == "its client":
        task.cancel()
    with pytest.raises((DeadlineExceeded, asyncio.CancelledError)):
        await task
    bench.model.backends = bench.stubs
    assert (await bench.plane.infer(make_request(knobs=PATIENT))).answer.variant == "full"  # by the one lane
    broken, _ = bench.events.runs
    assert (broken.variant, broken.failed) == ("full", True)
    assert broken.compute_s == broken.unwanted_s == pytest.approx(TOOK_S)
    assert broken.cpu_s >= 0.0


async def test_neither_the_variant_nor_the_request_is_blamed_for_a_run_that_was_broken_off(
    bench: Bench, manual_clock: ManualClock
) -> None:
    backend = lengthen(bench, manual_clock)
    for _ in range(5):
        task = await begin(bench, backend)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    bench.model.backends = bench.stubs
    assert (await bench.plane.infer(make_request(knobs=PATIENT))).answer.variant == "full"
    assert bench.model.health["full"].failures == 0
    assert bench.events.failed == []
    assert len(bench.events.runs) == 6  # nothing was tried again
    assert bench.statistics.of("sums").execution_count == 1
    await bench.told()
    assert bench.is_at_rest()


async def test_who_ends_a_request_tells_how_and_not_the_run_that_is_broken_off_meanwhile(bench: Bench) -> None:
    gate = bench.close_gates()
    (task,) = await bench.send(make_request(knobs=replace(PATIENT, variant="full")))
    await gate.reached()
    (job,) = bench.dispatcher._running.values()
    (ticket,) = job.tickets
    with bench.dispatcher.deciding:
        bench.dispatcher._end(ticket)
    gate.set()
    await bench.plane.infer(make_request(knobs=PATIENT))  # by the same lane, later
    assert not task.done()
    ticket.fail(Draining("the server is shutting down"))
    with pytest.raises(Draining):
        await task


@pytest.mark.parametrize(("took_s", "learns"), [(PREDICTED_S / 2, False), (PREDICTED_S * 2, True)])
async def test_a_run_that_was_broken_off_teaches_only_that_its_like_takes_longer(
    bench: Bench, manual_clock: ManualClock, took_s: float, learns: bool
) -> None:
    before_s = bench.model.typical_s("full", 1)
    task = await begin(bench, lengthen(bench, manual_clock, took_s))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.model.backends = bench.stubs
    await bench.plane.infer(make_request(knobs=replace(PATIENT, variant="small")))
    assert (bench.model.typical_s("full", 1) > before_s) == learns
    assert bench.model.typical_s("full", 1) >= before_s


@pytest.mark.parametrize("leaving", [1, 2])
async def test_a_shared_run_is_broken_off_when_all_have_left_and_not_before(bench: Bench, leaving: int) -> None:
    first_gate, shared_gate = Gate(), Gate()
    bench.stubs["full"].gate = first_gate
    first = await bench.occupy(first_gate)
    tasks = await bench.send(make_request(knobs=PATIENT), make_request(knobs=PATIENT))
    bench.stubs["full"].gate = shared_gate
    first_gate.set()
    await shared_gate.reached()
    for task in tasks[:leaving]:
        task.cancel()
    await asyncio.gather(*tasks[:leaving], return_exceptions=True)
    shared_gate.set()
    await asyncio.gather(*tasks[leaving:], first)
    await bench.plane.infer(make_request(knobs=PATIENT))
    assert [(run.rows, run.failed) for run in bench.events.runs] == [(1, False), (2, leaving == 2), (1, False)]


async def test_a_short_run_and_one_on_the_event_loop_have_nothing_that_could_break_them_off(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    class Kept(StubBackend):
        def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
            stops.append(stop)
            return super().run(inputs, stop)

    stops: list[Stop | None] = []
    for compute_s, inline_s in ((9e-5, 0.0), (2e-4, 1.0), (2e-4, 0.0)):
        bench = make_bench(variants=[make_variant("full", 0.9, compute_s)], clock=manual_clock, inline_s=inline_s)
        bench.model.backends = {"full": Kept()}
        bench.lanes_wait()
        await bench.plane.infer(make_request(knobs=PATIENT))
    assert [stop is not None for stop in stops] == [False, False, True]


async def test_the_end_of_the_server_breaks_runs_off(bench: Bench, manual_clock: ManualClock) -> None:
    backend = lengthen(bench, manual_clock)
    task = await begin(bench, backend)
    bench.dispatcher.abandon()
    assert backend.are_stopped()
    with pytest.raises(Draining):
        await task
    await asyncio.to_thread(bench.lanes.close)  # which waits for the lanes' threads
    assert bench.is_at_rest()


async def test_a_run_that_hangs_between_nodes_ends_when_it_is_given_up(bench: Bench, manual_clock: ManualClock) -> None:
    backend = lengthen(bench, manual_clock)
    task = await begin(bench, backend)
    for _ in range(7):
        bench.lanes.look()
        manual_clock.now_s += LOOK_EVERY_S
    assert (await task).answer.variant == "small"
    assert bench.events.replaced == ["full"]
    assert backend.are_stopped()
    for stuck in [*bench.lanes.stuck]:  # unless it has ended already
        await asyncio.to_thread(stuck.join, 60)
        assert not stuck.is_alive()
    assert [run.variant for run in bench.events.runs] == ["small"]


async def test_a_second_stage_is_broken_off_when_the_first_ones_answer_is_given(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(clock=manual_clock)
    cascading = Cascading(bench)
    ticket, gate = await cascading.second_stage(budget_s=0.2)
    manual_clock.now_s += 0.2
    assert (await ticket.done).variant == "small"
    gate.set()
    after = cascading.ticket(SURE)
    cascading.submit(after)
    await after.done
    assert [(run.variant, run.failed) for run in bench.events.runs[:2]] == [("small", False), ("full", True)]
    assert bench.events.runs[1].unwanted_s == bench.events.runs[1].compute_s > 0.0


async def test_no_run_is_begun_for_clients_that_have_left_unseen(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    tasks = await bench.send(*[make_request(float(value), knobs=PATIENT) for value in range(4)])
    for ticket in [*bench.model.queue][1:3]:
        ticket.done.has_left = lambda: True
    gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [False, True, True, False]
    await first
    assert [run.rows for run in bench.events.runs] == [1, 2]
    assert bench.events.refused == ["CancelledError"] * 2
    await bench.told()
    assert bench.is_at_rest()


async def test_a_lane_whose_only_client_has_left_waits_for_the_next(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    (task,) = await bench.send(make_request(knobs=PATIENT))
    bench.model.queue.head.done.has_left = lambda: True
    gate.set()
    await asyncio.gather(first, task, return_exceptions=True)
    assert task.cancelled()
    await bench.plane.infer(make_request(knobs=PATIENT))
    assert [run.rows for run in bench.events.runs] == [1, 1]


async def test_nobody_is_looked_after_for_a_run_as_short_as_the_look(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(variants=[make_variant("full", 0.9, 1.9e-4)], clock=manual_clock)
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    (task,) = await bench.send(make_request(knobs=PATIENT))
    bench.model.queue.head.done.has_left = lambda: True
    gate.set()
    await asyncio.gather(first, task)
    assert len(bench.events.runs) == 2
