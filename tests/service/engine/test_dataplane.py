"""The life of requests on stub backends, from submission to their one end."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.domain.errors import (
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    VariantNotFound,
)
from service.domain.inference import Criticality, Knobs, Reason, RequestedOutput
from service.domain.policy_file import ModelPolicy
from service.domain.tensors import Tensor
from service.domain.variants import Profile
from tests.builders import LADDER, make_request, make_variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.inference import InferenceRequest, InferenceResponse
    from service.engine.backends.stub import StubBackend
    from tests.service.engine.conftest import Bench, ManualClock

BATCHING = tuple(
    replace(
        item, profile=Profile(tuple(replace(item.profile.cells[0].scaled(0.1), batch_size=size) for size in (1, 64)))
    )
    for item in LADDER
)
"""The ladder on a machine so fast that nothing is ever late, and that computes 64 rows as quickly as one."""
PATIENT = Knobs(budget_s=30.0)


def result(response: InferenceResponse) -> float:
    return float(response.outputs[0].data[0, 0])


def request(value: float = 1.0, budget_s: float = 30.0, **knobs: object) -> InferenceRequest:
    return make_request(value, knobs=Knobs(budget_s, **knobs))  # type: ignore[arg-type] # a test's own spelling


def note_end(task: asyncio.Task[InferenceResponse], name: str, order: list[str]) -> None:
    """Append the name when the task ends."""

    def note(_: object) -> None:
        order.append(name)

    task.add_done_callback(note)


def note_thread(stub: StubBackend) -> list[int]:
    """Return a list to which every run of the stub adds its thread."""
    threads: list[int] = []

    def note(_: object) -> bool:
        threads.append(threading.get_ident())
        return False

    stub.fails = note
    return threads


async def test_a_lone_request_is_answered_by_the_most_accurate_variant(bench: Bench) -> None:
    response = await bench.plane.infer(make_request(2.0))
    answer = response.answer
    assert (result(response), response.model, response.version, response.id) == (8.0, "sums", "1", "request-1")
    assert (answer.variant, answer.tier, answer.reason) == ("full", "full", Reason.WITHIN_BUDGET)
    assert (answer.budget_s, answer.budget_met, answer.expected_accuracy) == (0.1, True, 0.92)
    assert answer.total_s >= answer.queue_s >= 0.0
    await bench.told()
    assert bench.events.finished == [answer]


async def test_a_small_budget_is_answered_by_a_smaller_variant(bench: Bench) -> None:
    answer = (await bench.plane.infer(request(budget_s=0.02))).answer
    assert (answer.variant, answer.reason, answer.best_accuracy) == ("quantized", Reason.WITHIN_BUDGET, 0.915)


async def test_a_floor_wins_over_the_budget_and_the_answer_says_so(bench: Bench) -> None:
    answer = (await bench.plane.infer(request(budget_s=0.004, min_accuracy=0.91))).answer
    assert (answer.variant, answer.reason, answer.best_accuracy) == ("quantized", Reason.ACCURACY_FLOOR, 0.0)


async def test_a_hopeless_budget_is_answered_late_by_the_fastest(bench: Bench) -> None:
    response = await bench.plane.infer(request(budget_s=0.001))
    assert (response.answer.variant, response.answer.reason) == ("distilled-quantized", Reason.LATE)


async def test_a_pin_is_answered_by_exactly_that_variant(bench: Bench) -> None:
    response = await bench.plane.infer(request(budget_s=0.001, variant="pruned-quantized"))
    assert (response.answer.variant, response.answer.reason, result(response)) == (
        "pruned-quantized",
        Reason.PINNED,
        12.0,
    )


async def test_outputs_come_as_asked_for(bench: Bench) -> None:
    response = await bench.plane.infer(replace(make_request(), outputs=(RequestedOutput("y"),)))
    assert [tensor.name for tensor in response.outputs] == ["y"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (make_request(model="absent"), ModelNotFound),
        (replace(make_request(), version="7"), ModelNotFound),
        (make_request(rows=9), InvalidRequest),
        (replace(make_request(), inputs=()), InvalidRequest),
        (make_request(knobs=Knobs(variant="absent")), VariantNotFound),
        (make_request(knobs=Knobs(min_accuracy=0.99)), InvalidRequest),
        (make_request(knobs=Knobs(timeout_s=0.001)), DeadlineExceeded),
        (make_request(knobs=Knobs(timeout_s=0.0)), DeadlineExceeded),
    ],
)
async def test_what_cannot_be_answered_is_refused_at_once(
    bench: Bench, wrong: InferenceRequest, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await bench.plane.infer(wrong)
    assert (bench.events.refused, bench.is_at_rest()) == ([error.__name__], True)
    assert all(not stub.batches for stub in bench.stubs.values())


async def test_an_infeasible_deadline_says_what_would_be_needed(bench: Bench) -> None:
    with pytest.raises(DeadlineExceeded, match=r"needs 2\.000 ms at least; the deadline leaves"):
        await bench.plane.infer(make_request(knobs=Knobs(timeout_s=0.001)))


async def test_requests_queued_while_the_lane_is_busy_share_runs_afterwards(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING)
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    tasks = await bench.send(*(request(float(value)) for value in range(5)))
    assert bench.queued == 5
    gate.set()
    responses = await asyncio.gather(*tasks)
    await first
    assert bench.stubs["full"].batches == [1, 5]
    assert [result(response) for response in responses] == [0.0, 4.0, 8.0, 12.0, 16.0]
    assert {response.answer.batch_size for response in responses} == {5}


async def test_shared_runs_hold_no_more_rows_than_the_policy_allows(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING, policy=ModelPolicy(max_batch_size=2))
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    tasks = await bench.send(*(request() for _ in range(5)))
    gate.set()
    await asyncio.gather(first, *tasks)
    assert bench.stubs["full"].batches == [1, 2, 2, 1]


async def test_requests_of_several_rows_get_their_own_rows_back(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING)
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    requests = [make_request(float(rows), rows=rows, knobs=PATIENT) for rows in (1, 2, 3)]
    tasks = await bench.send(*requests)
    gate.set()
    responses = await asyncio.gather(*tasks)
    await first
    assert [response.outputs[0].data[:, 0].tolist() for response in responses] == [[4.0], [8.0, 8.0], [12.0] * 3]


async def test_the_variant_is_chosen_when_a_lane_is_free_not_on_arrival(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(policy=ModelPolicy(max_batch_size=1, safety_margin_ratio=0.0))
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    lone = bench.plane.explain("sums", Knobs(budget_s=0.2)).chosen
    tasks = await bench.send(*(request(budget_s=0.3) for _ in range(30)))
    gate.set()
    responses = await asyncio.gather(*tasks)
    await first
    assert lone == "full"
    assert responses[0].answer.variant != "full"
    assert (responses[0].answer.reason, responses[0].answer.best_accuracy) == (Reason.DOWNGRADED, 0.92)


async def test_more_critical_requests_are_served_first_then_earlier_due_ones(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING, policy=ModelPolicy(max_batch_size=1))
    gate, order = bench.close_gates(), list[str]()
    first = await bench.occupy(gate)
    named = {
        "sheddable": request(criticality=Criticality.SHEDDABLE),
        "normal, later": request(budget_s=50.0),
        "normal, sooner": request(budget_s=20.0),
        "critical": request(criticality=Criticality.CRITICAL),
    }
    tasks = await bench.send(*named.values())
    for name, task in zip(named, tasks, strict=True):
        note_end(task, name, order)
    gate.set()
    await asyncio.gather(first, *tasks)
    assert order == ["critical", "normal, sooner", "normal, later", "sheddable"]


async def test_models_share_the_lane_by_due_moment(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING[:1])
    bench.add_model([make_variant("other", 0.9, 0.001)], name="others")
    gate, order = bench.close_gates(), list[str]()
    first = await bench.occupy(gate)
    tasks = await bench.send(request(budget_s=50.0), make_request(model="others", knobs=PATIENT))
    for name, task in zip(("sums", "others"), tasks, strict=True):
        note_end(task, name, order)
    assert bench.dispatcher.depths() == {"sums": 1, "others": 1}
    gate.set()
    await asyncio.gather(first, *tasks)
    assert order == ["others", "sums"]


async def test_late_work_of_one_model_waits_for_timely_work_of_another(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING[:1])
    bench.add_model([make_variant("other", 0.9, 0.001)], name="others")
    gate, order = bench.close_gates(), list[str]()
    first = await bench.occupy(gate)
    tasks = await bench.send(request(budget_s=0.001), make_request(model="others", knobs=PATIENT))
    for name, task in zip(("late", "timely"), tasks, strict=True):
        note_end(task, name, order)
    gate.set()
    await asyncio.gather(first, *tasks)
    assert order == ["timely", "late"]


async def test_a_backlog_of_late_requests_does_not_make_newcomers_late(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING[:1], policy=ModelPolicy(max_batch_size=1))
    gate, order = bench.close_gates(), list[str]()
    first = await bench.occupy(gate)
    late = await bench.send(*(request(budget_s=0.001) for _ in range(300)))
    (timely,) = await bench.send(request())
    for name, task in [*(("late", task) for task in late), ("timely", timely)]:
        note_end(task, name, order)
    gate.set()
    await asyncio.gather(first, timely, *late)
    assert order[0] == "timely"


async def test_two_lanes_compute_at_the_same_time(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(lanes=2)
    gate = bench.close_gates()
    one = await bench.occupy(gate)
    other = await bench.occupy(gate)
    gate.set()
    assert [result(response) for response in await asyncio.gather(one, other)] == [4.0, 4.0]


async def test_short_compute_runs_on_the_callers_thread_when_the_machine_is_idle(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(variants=BATCHING, inline_s=1.0)
    seen = note_thread(bench.stubs["full"])
    await bench.plane.infer(make_request())
    assert seen == [threading.get_ident()]
    assert bench.is_at_rest()


async def test_longer_compute_runs_on_a_lane(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING, inline_s=1e-6)
    seen = note_thread(bench.stubs["full"])
    await bench.plane.infer(make_request())
    assert len(seen) == 1
    assert seen[0] != threading.get_ident()


async def test_short_compute_queues_when_every_lane_is_busy(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING, inline_s=1e-9)
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    bench.dispatcher.inline_s = 1.0
    (task,) = await bench.send(request())
    assert bench.queued == 1
    gate.set()
    await asyncio.gather(first, task)


async def test_models_of_dynamic_shape_share_runs_only_among_equal_shapes(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=BATCHING)
    (spec,) = bench.model.info.inputs
    bench.model.info = replace(bench.model.info, inputs=(replace(spec, shape=(-1, -1)),))
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    requests = [
        replace(request(), inputs=(Tensor("x", "FP32", np.ones((1, width), dtype=np.float32)),))
        for width in (4, 6, 4, 6)
    ]
    tasks = await bench.send(*requests)
    gate.set()
    responses = await asyncio.gather(*tasks)
    await first
    assert [result(response) for response in responses] == [4.0, 6.0, 4.0, 6.0]
    assert bench.stubs["full"].batches == [1, 2, 2]


async def test_draining_refuses_newcomers_and_finishes_what_is_inside(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    bench.plane.refuse_new()
    with pytest.raises(Draining):
        await bench.plane.infer(make_request())
    idle = asyncio.create_task(bench.plane.wait_until_idle())
    await asyncio.sleep(0)  # let the waiter begin
    assert not idle.done()
    gate.set()
    await idle
    assert result(await first) == 4.0


async def test_leaving_turns_readiness_off_and_answers_on(bench: Bench) -> None:
    assert bench.plane.is_ready()
    bench.plane.leave()
    assert (bench.plane.is_ready(), bench.plane.is_model_ready("sums", ""), bench.plane.is_live()) == (
        False,
        False,
        True,
    )
    assert result(await bench.plane.infer(make_request())) == 4.0


async def test_closing_ends_what_waits_finishes_what_runs_and_leaves_no_thread(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(lanes=2)
    gate = bench.close_gates()
    running = [await bench.occupy(gate), await bench.occupy(gate)]
    (waiting,) = await bench.send(request())
    closing = asyncio.create_task(asyncio.to_thread(bench.lanes.close))
    with pytest.raises(Draining):
        await waiting
    gate.set()
    await closing
    assert [result(response) for response in await asyncio.gather(*running)] == [4.0, 4.0]
    assert bench.is_at_rest()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]
    with pytest.raises(Draining):
        await bench.plane.infer(make_request())


async def test_an_unloaded_model_finishes_what_it_has(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    (waiting,) = await bench.send(request())
    await bench.plane.unload_model("sums")
    with pytest.raises(ModelNotReady):
        await bench.plane.infer(make_request())
    gate.set()
    assert [result(response) for response in await asyncio.gather(first, waiting)] == [4.0, 4.0]


async def test_depths_count_the_old_and_the_new_queue_of_a_reloaded_model(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    (old,) = await bench.send(request())
    bench.add_model(LADDER)
    (new,) = await bench.send(request())
    assert bench.dispatcher.depths() == {"sums": 2}
    gate.set()
    await asyncio.gather(first, old, new)


async def test_statistics_count_exactly(make_bench: Callable[..., Bench], manual_clock: ManualClock) -> None:
    bench = make_bench(variants=BATCHING, clock=manual_clock)
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    tasks = await bench.send(*(make_request(rows=rows, knobs=PATIENT) for rows in (1, 2, 3)))
    with pytest.raises(InvalidRequest):
        await bench.plane.infer(make_request(rows=9))
    manual_clock.now_s += 0.01
    gate.set()
    await asyncio.gather(first, *tasks)
    (found,) = bench.plane.statistics("sums", "")
    assert (found.inference_count, found.execution_count) == (7, 2)
    assert (found.success.count, found.fail.count, found.queue.count) == (4, 1, 4)
    assert {part.count for part in (found.compute_input, found.compute_infer, found.compute_output)} == {4}
    assert [(batch.batch_size, batch.compute_infer.count) for batch in found.batches] == [(1, 1), (6, 1)]
    assert (found.success.ns, found.queue.ns) == pytest.approx((4e7, 3e7))  # the first one waited in its run
    assert found.last_inference_ms > 0


async def test_statistics_start_anew_when_a_model_is_loaded_again(bench: Bench) -> None:
    await bench.plane.infer(make_request())
    bench.add_model(LADDER)
    assert [item.success.count for item in bench.plane.statistics("", "")] == [0]
