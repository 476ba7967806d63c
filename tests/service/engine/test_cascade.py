"""Cascades: the small variant answers, and the big one is asked as well where the small one is unsure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.domain.inference import Knobs, Reason
from service.domain.policy_file import ModelPolicy
from service.engine.backends.stub import StubBackend
from service.engine.cascade import is_unsure, least_margin
from service.engine.loaded import LoadedModel
from service.policy.routing import Rules
from tests.builders import make_model, make_request
from tests.service.engine.cascading import CASCADE, SURE, UNSURE, VARIANTS, Cascading, value

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.engine.conftest import Bench, ManualClock


def takes(clock: ManualClock, seconds: float) -> Callable[[Any], bool]:
    """Return what lets every run of a stub take so long, and succeed."""

    def take(_: Any) -> bool:  # noqa: ANN401 - the inputs
        clock.now_s += seconds
        return False

    return take


@pytest.fixture
def cascading(bench: Bench) -> Cascading:
    return Cascading(bench)


async def test_a_sure_answer_of_the_small_variant_is_the_answer(cascading: Cascading) -> None:
    ticket = cascading.ticket(SURE)
    cascading.submit(ticket)
    outcome = await ticket.done
    assert (outcome.variant, outcome.is_cascaded, value(outcome.outputs)) == ("small", False, 4.0)
    assert cascading.batches() == (0, 1)


async def test_an_unsure_answer_is_asked_for_again_of_the_big_variant(
    make_bench: Callable[..., Bench], manual_clock: ManualClock
) -> None:
    cascading = Cascading(make_bench(clock=manual_clock))
    cascading.full.fails, cascading.small.fails = takes(manual_clock, 0.020), takes(manual_clock, 0.002)
    ticket = cascading.ticket(UNSURE)
    cascading.submit(ticket)
    outcome = await ticket.done
    assert (outcome.variant, outcome.is_cascaded, outcome.is_late) == ("full", True, False)
    assert value(outcome.outputs) == pytest.approx(0.8)
    assert ticket.kept is not None
    assert outcome.started_s == ticket.kept.started_s
    assert (outcome.compute_s, ticket.kept.compute_s) == pytest.approx((0.022, 0.002))
    assert cascading.batches() == (1, 1)


async def test_a_cascade_answers_through_the_whole_engine(cascading: Cascading) -> None:
    requests = [make_request(number, model="digits", knobs=Knobs(30.0)) for number in (SURE, UNSURE)]
    responses = [await cascading.bench.plane.infer(request) for request in requests]
    assert [response.answer.variant for response in responses] == ["small", "full"]
    assert [value((response.outputs[0].data,)) for response in responses] == pytest.approx([4.0, 0.8])
    stories = [(item.answer.reason, item.answer.cascade, item.answer.expected_accuracy) for item in responses]
    # What the objective asks for is no downgrade, even where a better variant would have kept the budget.
    assert stories == [(Reason.WITHIN_BUDGET, "sure", 0.915), (Reason.CASCADED, "escalated", 0.915)]
    assert all(item.answer.claimed_s >= item.answer.predicted_s > 0.0 for item in responses)
    assert cascading.bench.is_at_rest()


@pytest.mark.parametrize("inline_s", [0.005, 1.0])
async def test_a_cascade_answers_where_short_runs_are_computed_inline(
    make_bench: Callable[..., Bench], inline_s: float
) -> None:
    cascading = Cascading(make_bench(inline_s=inline_s))
    requests = [make_request(number, model="digits", knobs=Knobs(30.0)) for number in (SURE, UNSURE)]
    responses = [await cascading.bench.plane.infer(request) for request in requests]
    assert [response.answer.variant for response in responses] == ["small", "full"]


async def test_each_request_of_a_shared_run_is_judged_by_its_own_margin(cascading: Cascading) -> None:
    _, small = cascading.hold()
    cascading.full.gate.set()
    first = cascading.ticket(SURE)
    cascading.submit(first)
    await small.reached()
    cascading.model.tables["small"] = (0.0, *[0.002] * 8)  # sharing costs nothing
    tickets = [cascading.ticket(number) for number in (SURE, UNSURE, SURE)]
    cascading.submit(*tickets)
    small.set()
    outcomes = [await ticket.done for ticket in tickets]
    assert [outcome.variant for outcome in outcomes] == ["small", "full", "small"]
    assert cascading.small.batches == [1, 3]
    assert cascading.full.batches == [1]


@pytest.mark.parametrize(("last", "variant"), [(SURE, "small"), (UNSURE, "full")])
async def test_a_request_of_several_rows_is_as_sure_as_its_least_sure_row(
    cascading: Cascading, last: float, variant: str
) -> None:
    ticket = cascading.ticket(SURE, rows=3)
    ticket.request.inputs[0].data[-1] = last
    cascading.submit(ticket)
    outcome = await ticket.done
    assert outcome.variant == variant
    assert outcome.outputs[0].shape == (3, 2)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
async def test_an_answer_that_is_no_number_is_asked_for_again(cascading: Cascading, number: float) -> None:
    ticket = cascading.ticket(SURE)
    ticket.request.inputs[0].data[0, 0] = number
    cascading.submit(ticket)
    assert (await ticket.done).variant == ("small" if np.isinf(number) else "full")


@pytest.mark.parametrize(
    ("scores", "margin"),
    [
        ([[0.1, 0.7, 0.2]], 0.5),
        ([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]], 0.1),
        ([[3.0, 3.0]], 0.0),
        ([[1.0]], np.inf),
        ([1.0, 0.5], np.inf),
        ([[-5.0, -7.0]], 2.0),
    ],
)
def test_margin_is_the_least_difference_between_the_two_best_classes(scores: Any, margin: float) -> None:  # noqa: ANN401 - lists of any depth
    assert least_margin((np.array(scores, dtype=np.float32),)) == pytest.approx(margin)


@pytest.mark.parametrize("row", [[np.nan, 1.0], [np.nan, np.nan], [np.inf, np.inf]])
def test_margin_that_is_no_number_is_unsure_whatever_the_other_rows_say(row: list[float]) -> None:
    assert is_unsure((np.array([[9.0, 0.0], row]),), 0.5)


@pytest.mark.parametrize("knobs", [Knobs(variant="small"), Knobs(tier="small")])
async def test_a_pinned_request_gets_what_it_asked_for_however_unsure(cascading: Cascading, knobs: Knobs) -> None:
    ticket = cascading.ticket(knobs=knobs)
    cascading.submit(ticket)
    assert (await ticket.done).variant == "small"
    assert cascading.batches() == (0, 1)


async def test_an_accuracy_floor_above_the_small_variant_rules_its_cascade_out(cascading: Cascading) -> None:
    ticket = cascading.ticket(knobs=Knobs(min_accuracy=0.9))
    assert ticket.route.names == ("full",)


def test_a_policy_without_cascades_knows_none() -> None:
    info = make_model(VARIANTS, "digits", cascades=[CASCADE])
    stubs = {item.name: StubBackend() for item in VARIANTS}
    model = LoadedModel(info, Rules(ModelPolicy(cascades=False), {}, 60.0), stubs)
    assert model.plans == {}
    assert model.route(Knobs(), 0.0).names == ("full", "small")
