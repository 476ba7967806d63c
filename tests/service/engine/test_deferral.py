"""Lanes that wait for a fuller batch: the clock stands still, so only arrivals and the test move them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import Draining
from service.domain.inference import Knobs
from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell, Profile, Variant
from service.policy.routing import Rules
from tests.builders import DIGEST, make_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from service.domain.inference import InferenceRequest, InferenceResponse
    from tests.service.engine.conftest import Bench, ManualClock

# A run of one takes 30 s of a clock that stands still, one of eight 51 s.
CELLS = (LatencyCell(1, 30.0, 30.0, 30.0), LatencyCell(8, 51.0, 51.0, 51.0))
VARIANTS = (Variant("full", "full", 0.9, Profile(CELLS), 1, 1, DIGEST),)
DEFERS = ModelPolicy(safety_margin_ratio=0.0, defers=True)


@pytest.fixture
def bench(make_bench: Callable[..., Bench], manual_clock: ManualClock) -> Bench:
    return deferring(make_bench, manual_clock)


def deferring(make_bench: Callable[..., Bench], clock: ManualClock, lanes: int = 1, inline_s: float = 0.0) -> Bench:
    """Return a bench whose model needs batches of two: arrivals come at about one in 25 s for each lane."""
    bench = make_bench(variants=VARIANTS, policy=DEFERS, clock=clock, lanes=lanes, inline_s=inline_s)
    bench.model.go_by(Rules(DEFERS, {}, 5000.0))
    assert bench.model.standing.arrivals is not None
    bench.model.standing.arrivals = Rate(lanes / 25.0)  # type: ignore[assignment] # the real one forgets too fast
    return bench


class Rate:
    """A rate that stays."""

    def __init__(self, hz: float) -> None:
        self._hz = hz

    def arrived(self, now_s: float) -> None:
        del now_s

    def hz(self, now_s: float) -> float:
        del now_s
        return self._hz


def asked(budget_s: float = 1000.0) -> InferenceRequest:
    return make_request(knobs=Knobs(budget_s=budget_s, timeout_s=2000.0))


async def put_off(bench: Bench, requests: Sequence[InferenceRequest]) -> list[asyncio.Task[InferenceResponse]]:
    """Send requests and return when a lane has put their run off."""
    tasks = await bench.send(*requests)
    while True:
        with bench.dispatcher.deciding:
            if bench.dispatcher._look_s < float("inf"):
                return tasks
        await asyncio.sleep(0)


async def test_a_request_waits_for_the_second_and_they_run_together(bench: Bench) -> None:
    first = await put_off(bench, [asked()])
    assert bench.stubs["full"].batches == []
    second = await bench.send(asked())
    await asyncio.gather(*first, *second)
    assert bench.stubs["full"].batches == [2]
    assert bench.is_at_rest()


async def test_a_request_that_has_no_time_to_wait_runs_alone(bench: Bench) -> None:
    (task,) = await bench.send(asked(budget_s=35.0))
    await task
    assert bench.stubs["full"].batches == [1]


async def test_nobody_waits_for_company_once_the_policy_says_so(bench: Bench) -> None:
    bench.model.go_by(Rules(ModelPolicy(safety_margin_ratio=0.0), {}, 5000.0))
    await asyncio.gather(*await bench.send(asked()))
    assert bench.stubs["full"].batches == [1]


async def test_a_request_whose_client_leaves_while_it_waits_runs_nowhere(bench: Bench) -> None:
    (task,) = await put_off(bench, [asked()])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.queued == 0
    await asyncio.gather(*await put_off(bench, [asked()]), *await bench.send(asked()))
    assert bench.stubs["full"].batches == [2]


async def test_closing_ends_those_that_wait_for_company(bench: Bench) -> None:
    (task,) = await put_off(bench, [asked()])
    await asyncio.to_thread(bench.lanes.close)
    with pytest.raises(Draining):
        await task


async def test_a_lane_looks_again_by_itself_at_the_latest_start(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    bench = deferring(make_bench, manual_clock)
    dispatcher, waits_s = bench.dispatcher, list[float | None]()
    wait = dispatcher._changed.wait

    def pass_time(timeout: float | None = None) -> bool:
        if timeout is None:
            return wait()
        waits_s.append(timeout)
        manual_clock.now_s += timeout
        return False

    dispatcher._changed.wait = pass_time  # type: ignore[method-assign] # time is the manual clock's
    (task,) = await bench.send(asked(budget_s=100.0))
    await task
    assert bench.stubs["full"].batches == [1]
    # Batches of two take 33 s: with 25 s to the next one expected, waiting is worth it twice before 67 s.
    assert sum(item or 0.0 for item in waits_s) == pytest.approx(50.0)
    assert bench.events.finished[0].budget_met


async def test_another_models_request_ends_the_waiting(bench: Bench) -> None:
    bench.add_model(VARIANTS, "others")
    first = await put_off(bench, [asked()])
    other = await bench.send(make_request(model="others", knobs=Knobs(budget_s=1000.0, timeout_s=2000.0)))
    await asyncio.gather(*other)
    assert bench.stubs["full"].batches.count(1) == 1
    second = await bench.send(asked())
    await asyncio.gather(*first, *second)


async def test_all_is_served_by_several_lanes(make_bench: Callable[..., Bench], manual_clock: ManualClock) -> None:
    bench = deferring(make_bench, manual_clock, lanes=3)
    tasks = await put_off(bench, [asked()])
    for _ in range(20):
        tasks += await bench.send(asked(), asked(), asked())
    bench.model.go_by(Rules(ModelPolicy(safety_margin_ratio=0.0), {}, 5000.0))
    tasks += await bench.send(asked())  # whoever is left over need not wait for a clock that stands still
    await asyncio.gather(*tasks)
    assert sum(bench.stubs["full"].batches) == 62
    assert bench.is_at_rest()


async def test_a_short_run_is_put_off_on_one_lane_and_runs_at_once_beside_several(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    alone = deferring(make_bench, manual_clock, inline_s=60.0)
    tasks = await put_off(alone, [asked()])
    assert alone.stubs["full"].batches == []
    await asyncio.gather(*tasks, *await alone.send(asked()))
    several = deferring(make_bench, manual_clock, lanes=2, inline_s=60.0)
    threads: list[int] = []

    def note(_: Mapping[str, np.ndarray]) -> bool:
        threads.append(threading.get_ident())
        return False

    several.stubs["full"].fails = note
    await asyncio.gather(*await several.send(asked()))
    assert threads == [threading.get_ident()]
