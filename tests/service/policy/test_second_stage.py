"""Cascade plans among the candidates, and requests that have an answer and wait for a better one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.policy.costs import Costs, Plan
from service.policy.scheduling import Run, Situation, Waiting, choose_run

SECONDS = {"full": 0.030, "quantized": 0.009, "distilled": 0.002}
ACCURACY = {"full": 0.920, "quantized": 0.910, "distilled": 0.860}
PLAN = Plan("distilled+full", "distilled", "full", 0.5, 0.2, 0.914)  # 8 ms on average, 32 ms at worst
NAMES = ("full", PLAN.name, "quantized", "distilled")


def situation(batch_gain: float = 1.0, lanes: int = 1) -> Situation:
    tables = {name: (0.0, *(one * rows**batch_gain for rows in range(1, 9))) for name, one in SECONDS.items()}
    costs = Costs(tables, dict.fromkeys(SECONDS, 1.0), ACCURACY, {PLAN.name: PLAN})
    return Situation(costs, 0.0, (0.0,) * lanes, 8)


def waiting(due_s: float, candidates: tuple[str, ...] = NAMES) -> Waiting:
    return Waiting(due_s, 60.0, 1, candidates, None)


def kept(due_s: float) -> Waiting:
    return replace(waiting(due_s, ("full",)), kept_level=PLAN.accuracy)


def chosen(queue: list[Waiting], found: Situation) -> Run:
    run = choose_run(queue, found)
    assert run is not None
    return run


def test_a_plan_runs_as_its_small_variant_where_the_level_is_its_own() -> None:
    assert chosen([waiting(0.1)] * 11, situation()) == Run("distilled", (0,), 0.002, plan=PLAN.name)
    assert chosen([waiting(0.1)] * 2, situation()).plan == ""


def test_a_plan_is_not_begun_where_both_stages_could_be_late() -> None:
    assert chosen([waiting(0.031)] * 3, situation()).variant == "quantized"
    assert chosen([waiting(0.033), *[waiting(0.05)] * 3], situation()).plan == PLAN.name


def test_requests_that_may_take_the_plan_share_its_first_stage() -> None:
    may = waiting(0.5, (PLAN.name, "distilled"))
    run = chosen([may, waiting(0.5, ("distilled",)), may], situation(batch_gain=0.3))
    assert (run.variant, run.plan, run.members) == ("distilled", PLAN.name, (0, 2))


def test_a_second_stage_runs_while_there_is_time() -> None:
    assert chosen([kept(0.1)], situation()) == Run("full", (0,), 0.030)
    assert chosen([kept(0.1), waiting(0.1)], situation()).variant == "full"


def test_a_second_stage_is_given_up_for_those_behind_it() -> None:
    behind = [waiting(0.1)] * 12
    assert chosen([kept(0.1), *behind], situation()) == Run("", (0,), 0.0, is_settled=True)
    assert chosen([kept(0.1), *behind], situation(lanes=2)).variant == "full"


@pytest.mark.parametrize("due_s", [0.034, 0.061])
def test_a_second_stage_is_given_up_for_one_that_only_it_would_make_late(due_s: float) -> None:
    pinned = waiting(due_s, ("full",))
    run = chosen([kept(0.033), pinned], situation())
    assert run.is_settled == (due_s < 0.06)


def test_a_second_stage_that_became_late_is_settled_before_late_work_runs() -> None:
    assert chosen([kept(0.01), waiting(-1.0)], situation()) == Run("", (0,), 0.0, is_settled=True)
    assert chosen([waiting(-1.0), kept(0.01)], situation()) == Run("distilled", (0,), 0.002, is_late=True)


def test_a_second_stage_runs_alone() -> None:
    cheap = situation(batch_gain=0.1)
    assert chosen([kept(0.2), kept(0.2), waiting(0.2)], cheap).members == (0,)
    assert 1 not in chosen([waiting(0.1), kept(0.2), waiting(0.2)], cheap).members


def test_late_work_runs_on_a_variant_not_on_a_plan() -> None:
    assert chosen([waiting(-1.0, (PLAN.name, "full", "distilled"))], situation()).plan == ""
