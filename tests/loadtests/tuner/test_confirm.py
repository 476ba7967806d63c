from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from loadtests.simulator.workload import make_workload
from loadtests.tuner.confirm import Confirmed, best_confirmed, busiest, confirm, policies_of
from loadtests.tuner.judge import judge
from loadtests.tuner.request import Pace, Request, prepare
from loadtests.tuner.tune import RunnerUp, Tuned
from service.domain.policy_file import ModelPolicy
from tests.builders import write_repository
from tests.loadtests.tuner.questions import BUDGET_S, question

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.tuner.question import Question


def test_the_busiest_stretch_holds_the_most_arrivals() -> None:
    part = busiest(make_workload([0.0, 5.0, 10.0, 10.1, 10.2, 11.5, 20.0]), 1.0)
    assert part.arrival_s.tolist() == [10.0, 10.1, 10.2]


def test_a_gateway_below_the_floor_counts_only_where_it_is_sure() -> None:
    assert Confirmed("tuned", 1000, 900, None, 0.0, 0.0, ()).shortfall(0.99) > 0.05
    assert Confirmed("tuned", 100, 98, None, 0.0, 0.0, ()).shortfall(0.99) == 0.0
    assert Confirmed("tuned", 0, 0, None, 0.0, 0.0, ("lag",)).shortfall(0.99) == 0.0


def test_a_gateway_of_its_own_plays_the_unseen_arrivals(tmp_path: Path) -> None:
    write_repository(tmp_path)
    request = Request("sums", tmp_path, ((1.0, 1.0),), ("stand-in:conv",), pace=Pace(rate_hz=40.0), lanes=1)
    asked: Question = prepare(request).question
    asked = replace(asked, judging=(busiest(asked.judging[0], 2.0),))
    rounds: list[str] = []
    found = confirm(request, asked, {"base": asked.base}, 2.0, rounds.append)["base"]
    assert rounds == ["gateway, round 1: base", "gateway, round 2: base"]
    assert found.predicted_attainment == 1.0
    # A machine that is busy with other things makes runs invalid; they are then told apart, not counted.
    assert found.offered % len(asked.judging[0]) == 0
    assert found.offered or found.faults
    assert found.correct_on_time is None  # nobody knows this model's labels


GOOD = ModelPolicy(default_budget_ms=1e3 * BUDGET_S)
OTHER = GOOD.model_copy(update={"max_queued": 900})
BAD = GOOD.model_copy(update={"safety_margin_ratio": 10.0})
WELL, ILL = 990, 100
CALM = question(rate_hz=60.0, cv=1.0)


@pytest.mark.parametrize(
    ("runners_up", "on_time", "expected", "is_short"),
    [
        ((OTHER, BAD), (WELL, WELL, WELL), GOOD, False),
        ((OTHER, BAD), (ILL, WELL, WELL), OTHER, False),
        ((BAD, OTHER), (ILL, WELL, WELL), OTHER, False),  # the judge proves no gain of what is as bad as the base
        ((BAD, OTHER), (ILL, WELL, ILL), GOOD, True),
        ((), (ILL,), GOOD, True),
    ],
)
def test_a_policy_that_the_gateway_belies_gives_way_to_the_next_best(
    runners_up: tuple[ModelPolicy, ...], on_time: tuple[int, ...], expected: ModelPolicy, *, is_short: bool
) -> None:
    others = tuple(RunnerUp(policy, judge(CALM, BAD, policy).tuned) for policy in runners_up)
    tuned = Tuned(BAD, GOOD, judge(CALM, BAD, GOOD), (), 0.0, 0, 0.0, is_interrupted=False, runners_up=others)
    played = policies_of(tuned)
    assert list(played.values()) == [BAD, GOOD, *runners_up]
    counts = dict(zip(played, (WELL, *on_time), strict=True))
    found = {name: Confirmed(name, 1000, count, None, 0.0, 0.0, ()) for name, count in counts.items()}
    best, short = best_confirmed(tuned, CALM, found)
    assert best.policy == best.candidate == expected
    assert best.promised == next((item.promised for item in others if item.policy == expected), tuned.promised)
    assert (short > 0.0) is is_short


def test_nothing_but_the_two_is_played_where_the_base_stays() -> None:
    tuned = Tuned(
        GOOD, OTHER, judge(CALM, GOOD, OTHER), (), 0.0, 0, 0.0, is_interrupted=False, runners_up=(RunnerUp(BAD, ()),)
    )
    assert list(policies_of(tuned)) == ["base", "tuned"]
