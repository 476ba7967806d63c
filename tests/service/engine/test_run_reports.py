"""What the engine reports of a run besides its time on the clock."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import BackendFailed, DeadlineExceeded
from service.domain.inference import Knobs
from service.domain.variants import LatencyCell, Profile
from tests.builders import make_request, make_variant
from tests.service.engine.conftest import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.engine.conftest import Bench, ManualClock

BURNT_S = 0.01
PATIENT = Knobs(budget_s=30.0)


def burn(_: object) -> bool:
    """Compute for a while, and well."""
    end_s = time.thread_time() + BURNT_S
    while time.thread_time() < end_s:
        pass
    return False


def burn_in_vain(inputs: object) -> bool:
    return not burn(inputs)


def wait(_: object) -> bool:
    """Take time, and none of the processor's."""
    threading.Event().wait(5 * BURNT_S)
    return False


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(clock=time.perf_counter)  # what a run computes, and what it waits, is real here


async def test_a_run_reports_the_cpu_time_of_its_thread(bench: Bench) -> None:
    bench.stubs["full"].fails = burn
    answer = (await bench.plane.infer(make_request(knobs=PATIENT))).answer
    (run,) = bench.events.runs
    assert BURNT_S <= run.cpu_s < run.compute_s + BURNT_S
    assert answer.runs == (run,)


async def test_waiting_is_no_cpu_time(bench: Bench) -> None:
    bench.stubs["full"].fails = wait
    await bench.plane.infer(make_request(knobs=PATIENT))
    (run,) = bench.events.runs
    assert 0.0 < run.cpu_s < run.compute_s / 2


async def test_a_failed_run_reports_its_cpu_time_too(bench: Bench) -> None:
    for stub in bench.stubs.values():
        stub.fails = burn_in_vain
    with pytest.raises(BackendFailed):
        await bench.plane.infer(make_request(knobs=PATIENT))
    assert all(run.failed and run.cpu_s >= BURNT_S for run in bench.events.runs)
    assert bench.events.runs


async def test_prediction_is_the_median_of_its_like_and_is_made_before_the_run(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = make_bench(variants=[make_variant("full", 0.9, 0.010)], clock=manual_clock)
    took_s = 0.020

    def pass_time(_: object) -> bool:
        manual_clock.now_s += took_s
        return False

    bench.stubs["full"].fails = pass_time
    for _ in range(100):
        await bench.plane.infer(make_request())
    took_s = 0.100  # one stall of many
    await bench.plane.infer(make_request())
    took_s = 0.020
    await bench.plane.infer(make_request())
    assert bench.events.runs[0].predicted_s == pytest.approx(0.010)
    assert bench.events.runs[100].predicted_s == pytest.approx(0.020, rel=0.05)
    assert bench.events.runs[101].predicted_s == pytest.approx(0.020, rel=0.05)


@pytest.mark.parametrize("ends_by", ["its deadline", "its client"])
async def test_a_run_reports_what_of_it_was_for_requests_that_had_ended(
    ends_by: str, make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    """Of a run of four rows one is of a request that ends meanwhile."""
    cells = (LatencyCell(1, 0.010, 0.010, 0.010), LatencyCell(8, 0.011, 0.011, 0.011))
    bench = make_bench(variants=[replace(make_variant("full", 0.9, 0.010), profile=Profile(cells))], clock=manual_clock)
    meanwhile = Gate()

    def pass_time(_: object) -> bool:
        manual_clock.now_s += 0.020
        if len(bench.stubs["full"].batches) > 1:
            meanwhile.wait()
        return False

    bench.stubs["full"].fails = pass_time
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    knobs = replace(PATIENT, timeout_s=0.5) if ends_by == "its deadline" else PATIENT
    stays, ends = await bench.send(make_request(rows=3, knobs=PATIENT), make_request(knobs=knobs))
    gate.set()
    await meanwhile.reached()
    if ends_by == "its client":
        ends.cancel()
    with pytest.raises((DeadlineExceeded, asyncio.CancelledError)):
        await ends
    meanwhile.set()
    await asyncio.gather(first, stays)
    assert [(run.rows, run.unwanted_s) for run in bench.events.runs] == [(1, 0.0), (4, pytest.approx(0.020 / 4))]
