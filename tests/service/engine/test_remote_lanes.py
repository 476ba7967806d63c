"""A remote variant beside a local one, from the request to its answer; the other server is a double."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from service.domain.errors import DeadlineExceeded, ModelNotReady, RemoteBackendFailed, RemoteUnavailable
from service.domain.inference import Knobs
from service.telemetry.tracing import RequestTracing
from tests.builders import make_request
from tests.service.engine.remoting import POOL, RemoteBench, answer
from tests.service.telemetry.test_regret_and_exemplars import NoSpans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Future

WAIT_S = 60.0


async def is_cancelled(call: Future[Any]) -> bool:
    """Wait until a call has ended; tell whether it was cancelled. Its lane may not have attached it yet."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    call.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    await asyncio.wait_for(ended.wait(), WAIT_S)
    return call.cancelled()


@pytest.fixture
async def bench() -> AsyncIterator[RemoteBench]:
    found = RemoteBench()
    found.lanes.start()
    found.set_up(is_up=True)
    yield found
    await found.close()


async def test_the_more_accurate_variant_is_asked_for_elsewhere(bench: RemoteBench) -> None:
    task = bench.ask()
    rows, _, call = await bench.remote.next_call()
    call.set_result(answer(rows, 40.0))
    response = await task
    assert (response.answer.variant, response.answer.reason) == ("full", "within_budget")
    assert response.outputs[0].data.tolist() == [[40.0]]


async def test_a_call_elsewhere_blocks_no_lane_here(bench: RemoteBench) -> None:
    away = bench.ask()
    _, _, call = await bench.remote.next_call()
    here = await bench.ask(variant="small")
    assert here.answer.variant == "small"
    assert not away.done()
    call.set_result(answer(1, 40.0))
    await away


async def test_while_no_server_is_up_requests_are_answered_here(bench: RemoteBench) -> None:
    bench.set_up(is_up=False)
    assert (await bench.ask()).answer.variant == "small"
    with pytest.raises(ModelNotReady, match="none of its servers is up"):
        await bench.ask(variant="full")
    bench.set_up(is_up=True)
    task = bench.ask()
    _, _, call = await bench.remote.next_call()
    call.set_result(answer(1, 40.0))
    assert (await task).answer.variant == "full"


async def test_the_server_is_told_how_long_somebody_waits(bench: RemoteBench) -> None:
    task = bench.ask(timeout_s=20.0)
    _, timeout_s, call = await bench.remote.next_call()
    assert 0.0 < timeout_s <= 20.0
    call.set_result(answer(1, 40.0))
    await task


async def test_a_request_whose_server_cannot_be_reached_is_answered_here(bench: RemoteBench) -> None:
    task = bench.ask()
    _, _, call = await bench.remote.next_call()
    call.set_exception(RemoteUnavailable("gone"))
    response = await task
    assert (response.answer.variant, response.answer.reason) == ("small", "fallback")
    assert bench.remote.calls.empty()


async def test_all_that_shared_a_call_go_on_here_without_asking_there_again(bench: RemoteBench) -> None:
    first, second = bench.ask(), bench.ask()
    calls = [await bench.remote.next_call() for _ in range(2)]  # both lanes are busy: the next requests gather
    tasks = [bench.ask() for _ in range(4)]
    await asyncio.sleep(0)  # each request runs to its first wait: it is queued
    assert bench.dispatcher.depths() == {"sums": len(tasks)}
    calls[0][2].set_result(answer(1, 40.0))
    rows, _, shared = await bench.remote.next_call()
    assert rows > 1
    shared.set_exception(RemoteUnavailable("gone"))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result().answer.variant for task in done} == {"small"}
    bench.set_up(is_up=False)
    calls[1][2].set_result(answer(1, 40.0))
    await asyncio.gather(first, second)
    while not bench.remote.calls.empty():
        bench.remote.calls.get_nowait()[2].set_exception(RemoteUnavailable("gone"))
    assert {(await task).answer.variant for task in tasks} == {"small"}


async def test_a_pinned_request_whose_server_cannot_be_reached_is_told_so(bench: RemoteBench) -> None:
    task = bench.ask(variant="full")
    _, _, call = await bench.remote.next_call()
    call.set_exception(RemoteUnavailable("gone"))
    with pytest.raises(RemoteUnavailable, match="gone"):
        await task


async def test_a_failure_there_is_retried_on_the_next_variant_like_any_other(bench: RemoteBench) -> None:
    task = bench.ask()
    _, _, call = await bench.remote.next_call()
    call.set_exception(RemoteBackendFailed("out of memory"))
    assert (await task).answer.reason == "fallback"


async def test_a_client_that_leaves_ends_its_call(bench: RemoteBench) -> None:
    task = bench.ask()
    _, _, call = await bench.remote.next_call()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_cancelled(call)


async def test_a_deadline_that_passes_ends_the_call(bench: RemoteBench) -> None:
    task = bench.ask()
    _, _, call = await bench.remote.next_call()
    (job,) = bench.dispatcher._running.values()
    bench.dispatcher.expire(job.tickets[0])  # as its timer does
    with pytest.raises(DeadlineExceeded):
        await task
    assert await is_cancelled(call)


async def test_what_waits_for_nothing_else_is_refused_when_the_last_server_goes() -> None:
    bench = RemoteBench()  # its lanes do not run: everything waits
    bench.set_up(is_up=True)
    pinned, free = bench.ask(variant="full"), bench.ask()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.set_up(is_up=False)
    with pytest.raises(ModelNotReady, match="out of reach"):
        await asyncio.wait_for(pinned, WAIT_S)
    assert bench.dispatcher.depths() == {"sums": 1}
    bench.lanes.start()
    assert (await asyncio.wait_for(free, WAIT_S)).answer.variant == "small"
    await bench.close()


async def test_request_whose_run_failed_is_refused_at_once_where_what_is_left_is_away() -> None:
    bench = RemoteBench()  # its lanes do not run: everything waits
    bench.set_up(is_up=True)
    asking = bench.ask(variant="full")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (ticket,) = list(bench.model.queue)
    bench.dispatcher.desk.remove(ticket)  # as if it ran
    bench.set_up(is_up=False)
    bench.dispatcher.resubmit(ticket)
    with pytest.raises(ModelNotReady, match="out of reach"):
        await asyncio.wait_for(asking, WAIT_S)
    assert bench.dispatcher.depths() == {}
    bench.lanes.start()
    await bench.close()


async def test_call_says_whether_somebody_else_could_answer_and_whose_trace_it_belongs_to(bench: RemoteBench) -> None:
    traced = make_request()
    traced.trace = RequestTracing(NoSpans(), 1.0).begin("http", None, None)
    assert traced.trace is not None
    for request in (traced, make_request(knobs=Knobs(variant="full"))):
        task = asyncio.create_task(bench.plane.infer(request))
        (await bench.remote.next_call())[2].set_result(answer(1, 40.0))
        await task
    assert [call.has_other_way for call in bench.remote.asked] == [True, False]
    assert [call.traceparent for call in bench.remote.asked] == [traced.trace.response_header, ""]


async def test_no_remote_call_is_made_on_the_event_loop(bench: RemoteBench) -> None:
    assert not bench.model.may_inline("full", 1, 1e9, 0.0)
    assert bench.model.may_inline("small", 1, 1e9, 0.0)


async def test_what_calls_take_is_learnt(bench: RemoteBench) -> None:
    before_s = bench.model.costs(bench.dispatcher.clock()).of("full", 1)
    for _ in range(30):
        bench.model.learn("full", 1, 0.050, bench.dispatcher.clock())
    assert bench.model.typical_s("full", 1) > 10 * before_s
    bench.set_up(is_up=True)
    assert bench.model.costs(bench.dispatcher.clock()).of("full", 1) == pytest.approx(0.050, rel=0.5)


async def test_a_loaded_model_reports_its_lanes(bench: RemoteBench) -> None:
    assert len(bench.dispatcher.desk.lanes) == 1
    assert [lane.number for lane in bench.dispatcher.desk.pools[POOL].lanes] == [1, 2]
