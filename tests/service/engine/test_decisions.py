"""What is told of a decision after the fact."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import BackendFailed, ModelNotFound
from service.domain.inference import Knobs
from service.engine.decisions import Decisions
from tests.builders import make_request
from tests.service.engine.cascading import SURE, UNSURE, Cascading

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.decisions import Decision
    from tests.service.engine.conftest import Bench


def verdicts(decision: Decision) -> dict[str, str]:
    return {item.name: item.verdict for item in decision.candidates}


async def ask(bench: Bench, **knobs: float | str) -> Decision:
    """Send a request and return what is told of its decision."""
    await bench.plane.infer(make_request(knobs=Knobs(**knobs)))  # type: ignore[arg-type]
    await bench.told()
    return next(bench.plane.decisions("sums", 1))


async def test_a_decision_tells_what_was_asked_and_what_came_of_it(bench: Bench) -> None:
    before_s = time.time()
    decision = await ask(bench, budget_s=0.5, timeout_s=2.0)
    assert (decision.request_id, decision.protocol, decision.rows) == ("request-1", "http", 1)
    assert decision.knobs == Knobs(budget_s=0.5, timeout_s=2.0)
    assert decision.answer is bench.events.finished[-1]
    assert decision.timeout_s == pytest.approx(2.0)
    assert before_s - 1.0 < decision.arrived_s < time.time() + 1.0
    assert 0.0 < decision.slack_s < 0.5


async def test_every_candidate_is_told_why_it_did_not_answer(bench: Bench) -> None:
    decision = await ask(bench, budget_s=0.02)
    assert verdicts(decision) == {
        "full": "too_slow",
        "quantized": "chosen",
        "pruned-quantized": "less_accurate",
        "distilled-quantized": "less_accurate",
    }
    why = next(item.why for item in decision.candidates if item.name == "full")
    assert why.startswith("needs 30.000 ms; ")
    assert [item.compute_s for item in decision.candidates] == pytest.approx([0.030, 0.009, 0.005, 0.002])


async def test_what_the_knobs_leave_out_is_told_as_excluded(bench: Bench) -> None:
    decision = await ask(bench, variant="quantized")
    assert verdicts(decision) == dict.fromkeys(["full", "pruned-quantized", "distilled-quantized"], "excluded") | {
        "quantized": "chosen"
    }


async def test_a_queue_is_told_as_the_reason_of_a_smaller_variant(bench: Bench) -> None:
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    waiting = await bench.send(*(make_request(knobs=Knobs(budget_s=0.3)) for _ in range(12)))
    gate.set()
    for task in (first, *waiting):
        await task
    await bench.told()
    told = tuple(bench.plane.decisions("sums", 12))
    downgraded = [item for item in told if item.answer.variant != "full" and item.queued]
    assert downgraded
    assert all(verdicts(item)["full"] in ("above_level", "too_slow") for item in downgraded)
    above = [item for item in downgraded if verdicts(item)["full"] == "above_level"]
    assert all(f"{item.queued} more request" in item.candidates[0].why for item in above)


async def test_a_fallback_tells_which_variant_failed(bench: Bench) -> None:
    bench.stubs["full"].fails = lambda _: True
    decision = await ask(bench)
    assert decision.answer.variant == "quantized"
    assert verdicts(decision)["full"] == "failed"


async def test_a_cascade_is_told_as_what_was_chosen(bench: Bench) -> None:
    cascading = Cascading(bench)
    for number in (SURE, UNSURE):
        await bench.plane.infer(make_request(number, model="digits", knobs=Knobs(30.0)))
    await bench.told()
    (plan,) = cascading.model.plans
    for decision in bench.plane.decisions("digits", 2):
        assert [name for name, verdict in verdicts(decision).items() if verdict == "chosen"] == [plan]
        assert verdicts(decision).keys() == {plan, "full", "small"}


async def test_the_newest_come_first_and_the_oldest_are_forgotten(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(decisions=Decisions(3))
    for budget_s in (1.0, 2.0, 3.0, 4.0):
        await ask(bench, budget_s=budget_s)
    assert [item.knobs.budget_s for item in bench.plane.decisions("sums", 2)] == [4.0, 3.0]
    assert [item.knobs.budget_s for item in bench.plane.decisions("sums", 99)] == [4.0, 3.0, 2.0]


async def test_nothing_is_kept_where_none_are_to_be_kept(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(decisions=Decisions(0))
    await bench.plane.infer(make_request())
    await bench.told()
    assert list(bench.plane.decisions("sums", 10)) == []


async def test_requests_without_an_answer_leave_no_decision(bench: Bench) -> None:
    for stub in bench.stubs.values():
        stub.fails = lambda _: True
    with pytest.raises(BackendFailed):
        await bench.plane.infer(make_request())
    assert list(bench.plane.decisions("sums", 10)) == []
    with pytest.raises(ModelNotFound):
        bench.plane.decisions("strange", 1)
