"""What happens when runs fail: the next variant, poisoned requests, variants taken out and let in again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.domain.errors import BackendFailed, DeadlineExceeded, Draining, ModelNotReady
from service.domain.inference import Knobs, Reason
from service.engine.backends.stub import StubBackend
from tests.builders import LADDER, make_request, make_variant
from tests.service.engine.conftest import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from service.domain.inference import InferenceRequest
    from service.engine.backends.backend import Stop
    from tests.service.engine.conftest import Bench, ManualClock

POISON = 666.0
FAST = tuple(make_variant(item.name, item.accuracy, item.profile.cells[0].p50_s / 100) for item in LADDER)


def always(inputs: Mapping[str, NDArray[Any]]) -> bool:
    del inputs
    return True


def on_poison(inputs: Mapping[str, NDArray[Any]]) -> bool:
    return bool((inputs["x"] == POISON).any())


def request(value: float = 1.0, **knobs: object) -> InferenceRequest:
    return make_request(value, knobs=Knobs(30.0, **knobs))  # type: ignore[arg-type] # a test's own spelling


@pytest.fixture
def bench(make_bench: Callable[..., Bench], manual_clock: ManualClock) -> Bench:
    return make_bench(variants=FAST, clock=manual_clock)


async def test_a_failed_run_falls_back_to_the_next_variant(bench: Bench) -> None:
    bench.stubs["full"].fails = always
    response = await bench.plane.infer(request())
    assert (response.answer.variant, response.answer.reason) == ("quantized", Reason.FALLBACK)
    assert [(report.variant, report.failed) for report in bench.events.runs] == [("full", True), ("quantized", False)]


async def test_a_request_is_given_up_after_failing_on_two_variants(bench: Bench) -> None:
    for stub in bench.stubs.values():
        stub.fails = always
    with pytest.raises(BackendFailed, match="the stub was told to fail"):
        await bench.plane.infer(request())
    assert [len(stub.batches) for stub in bench.stubs.values()] == [1, 1, 0, 0]
    assert bench.is_at_rest()


async def test_a_pinned_request_is_never_answered_by_another_variant(bench: Bench) -> None:
    bench.stubs["full"].fails = always
    with pytest.raises(BackendFailed):
        await bench.plane.infer(request(variant="full"))
    assert not bench.stubs["quantized"].batches


class CrashingBackend(StubBackend):
    """Raises what no backend should."""

    def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
        del stop
        raise ZeroDivisionError(f"secret path of {sorted(inputs)}")


async def test_an_error_that_nobody_foresaw_is_told_without_its_text_and_leaves_the_lane_alive(bench: Bench) -> None:
    crashing = CrashingBackend()
    bench.model.backends = dict.fromkeys(bench.stubs, crashing)
    with pytest.raises(BackendFailed, match=r"^ZeroDivisionError in a run$"):
        await bench.plane.infer(request())
    bench.model.backends = bench.stubs
    assert (await bench.plane.infer(request())).answer.variant == "full"


class ShortBackend(StubBackend):
    """Returns one row too few."""

    def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
        del stop
        return (np.zeros((len(inputs["x"]) - 1, 1), dtype=np.float32),)


async def test_an_output_with_another_number_of_rows_is_a_failed_run(bench: Bench) -> None:
    bench.model.backends = bench.stubs | {"full": ShortBackend()}
    assert (await bench.plane.infer(request())).answer.reason is Reason.FALLBACK


async def test_a_poisoned_request_fails_alone_and_those_that_shared_its_run_are_answered(bench: Bench) -> None:
    for stub in bench.stubs.values():
        stub.fails = on_poison
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    good, bad, fine = await bench.send(request(1.0), request(POISON), request(2.0))
    gate.set()
    responses = await asyncio.gather(first, good, fine)
    with pytest.raises(BackendFailed):
        await bad
    assert {response.answer.variant for response in responses} == {"full"}
    assert {response.answer.reason for response in responses} == {Reason.WITHIN_BUDGET}
    assert bench.stubs["full"].batches == [1, 3, 1, 1, 1]


async def test_poisoned_requests_take_no_variant_out(bench: Bench) -> None:
    for stub in bench.stubs.values():
        stub.fails = on_poison
    for _ in range(5):
        with pytest.raises(BackendFailed):
            await bench.plane.infer(request(POISON))
    assert bench.events.failed == []
    assert bench.model.ready(bench.clock()) == set(bench.stubs)


async def test_a_variant_is_taken_out_after_three_failures_of_its_own(bench: Bench) -> None:
    bench.stubs["full"].fails = always
    for _ in range(5):
        await bench.plane.infer(request())
    assert len(bench.stubs["full"].batches) == 3
    assert bench.events.failed == [("sums", "full")]
    (full, *others) = bench.plane.variants("sums")
    assert (full.state, full.reason) == ("failed", "its runs failed")
    assert {state.state for state in others} == {"ready"}


async def test_a_resting_variant_cannot_be_pinned(bench: Bench) -> None:
    bench.stubs["full"].fails = always
    for _ in range(3):
        await bench.plane.infer(request())
    with pytest.raises(ModelNotReady, match="no ready variant among full"):
        await bench.plane.infer(request(variant="full"))
    assert not bench.plane.is_model_ready("sums--full", "")
    assert bench.plane.is_model_ready("sums--quantized", "")


async def test_a_variant_comes_back_after_its_rest(bench: Bench, manual_clock: ManualClock) -> None:
    bench.stubs["full"].fails = always
    for _ in range(3):
        await bench.plane.infer(request())
    bench.stubs["full"].fails = None
    manual_clock.now_s += 29.0
    assert (await bench.plane.infer(request())).answer.variant == "quantized"
    manual_clock.now_s += 2.0
    assert (await bench.plane.infer(request())).answer.variant == "full"


async def test_a_variant_that_fails_again_after_its_rest_rests_at_once(bench: Bench, manual_clock: ManualClock) -> None:
    bench.stubs["full"].fails = always
    for _ in range(3):
        await bench.plane.infer(request())
    manual_clock.now_s += 31.0
    await bench.plane.infer(request())
    assert bench.events.failed == [("sums", "full")] * 2
    assert "full" not in bench.model.ready(bench.clock())


async def test_a_success_forgets_failures(bench: Bench) -> None:
    for _ in range(4):
        bench.stubs["full"].fails = always
        for _ in range(2):
            await bench.plane.infer(request())
        bench.stubs["full"].fails = None
        await bench.plane.infer(request())
    assert bench.events.failed == []


async def test_a_failed_run_teaches_nothing_about_speed(bench: Bench) -> None:
    bench.stubs["full"].fails = always
    await bench.plane.infer(request())
    assert bench.model.corrections["full"].at(bench.clock()) == 1.0
    assert bench.model.corrections["quantized"].at(bench.clock()) < 1.0


async def test_failed_runs_are_not_in_the_statistics(bench: Bench) -> None:
    bench.stubs["full"].fails = always
    await bench.plane.infer(request())
    await bench.told()
    (found,) = bench.plane.statistics("sums", "")
    assert (found.inference_count, found.execution_count, found.success.count, found.fail.count) == (1, 1, 1, 0)


async def test_a_cancelled_request_is_not_tried_again(bench: Bench) -> None:
    bench.stubs["full"].fails = always
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    bench.stubs["full"].fails = None
    await bench.plane.infer(request())
    assert not bench.stubs["quantized"].batches


async def test_an_inline_failure_is_tried_again_on_a_lane_with_its_deadline_kept(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(variants=FAST, inline_s=1.0)
    bench.stubs["full"].fails = always
    gate = bench.stubs["quantized"].gate = Gate()
    (task,) = await bench.send(request(timeout_s=0.05))
    await gate.reached()
    with pytest.raises(DeadlineExceeded):
        await task
    gate.set()
    assert bench.events.expired == ["running"]


async def test_an_inline_failure_is_not_tried_again_when_its_client_leaves(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(variants=FAST, inline_s=1.0, lanes=2)
    gate = Gate()
    bench.add_model([make_variant("slow", 0.9, 5.0)], name="others")
    bench.stubs["slow"].gate = gate
    blockers = await bench.send(*[make_request(model="others", knobs=Knobs(30.0))] * 2)
    await gate.reached()
    await gate.reached()
    bench.dispatcher.desk.lanes[0].is_busy = False  # as when a lane has just ended and its thread has not yet come back
    bench.stubs["full"].fails = always
    (task,) = await bench.send(request())
    assert bench.queued == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.queued == 0
    gate.set()
    await asyncio.gather(*blockers)
    assert not bench.stubs["quantized"].batches


async def test_a_request_that_fails_while_the_lanes_close_still_ends(bench: Bench) -> None:
    bench.stubs["full"].fails = always
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    bench.dispatcher.close()
    gate.set()
    with pytest.raises(Draining):
        await first
