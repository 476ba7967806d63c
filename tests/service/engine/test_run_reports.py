"""What the engine reports of a run besides its time on the clock."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import BackendFailed
from tests.builders import make_request

if TYPE_CHECKING:
    from tests.service.engine.conftest import Bench

BURNT_S = 0.01


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


async def test_a_run_reports_the_cpu_time_of_its_thread(bench: Bench) -> None:
    bench.stubs["full"].fails = burn
    answer = (await bench.plane.infer(make_request())).answer
    (run,) = bench.events.runs
    assert BURNT_S <= run.cpu_s < run.compute_s + BURNT_S
    assert answer.runs == (run,)


async def test_waiting_is_no_cpu_time(bench: Bench) -> None:
    bench.stubs["full"].fails = wait
    await bench.plane.infer(make_request())
    (run,) = bench.events.runs
    assert 0.0 < run.cpu_s < run.compute_s / 2


async def test_a_failed_run_reports_its_cpu_time_too(bench: Bench) -> None:
    for stub in bench.stubs.values():
        stub.fails = burn_in_vain
    with pytest.raises(BackendFailed):
        await bench.plane.infer(make_request())
    assert all(run.failed and run.cpu_s >= BURNT_S for run in bench.events.runs)
    assert bench.events.runs
