from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.tuner.judge import Verdict, judge
from loadtests.tuner.question import Limits
from loadtests.tuner.tune import Effort, tune
from service.domain.policy_file import ModelPolicy
from tests.loadtests.tuner.questions import BUDGET_S, question

BASE = ModelPolicy(default_budget_ms=1e3 * BUDGET_S)
# Every prediction eleven times too long: nothing but the smallest variant seems to fit.
BAD = BASE.model_copy(update={"safety_margin_ratio": 10.0})


def test_a_policy_against_itself_is_unproven() -> None:
    found = judge(question(), BASE, BASE)
    assert found.verdict is Verdict.UNPROVEN
    assert (found.gain.value, found.gain.low, found.gain.high) == (0.0, 0.0, 0.0)


def test_a_gain_above_zero_is_proven_and_the_reverse_is_not() -> None:
    calm = question(rate_hz=60.0, cv=1.0)
    better, worse = judge(calm, BAD, BASE), judge(calm, BASE, BAD)
    assert better.verdict is Verdict.BETTER
    assert better.gain.low > 0.0
    assert worse.verdict is Verdict.UNPROVEN
    assert worse.gain.high < 0.0
    assert worse.gain.value == pytest.approx(-better.gain.value)


def test_a_policy_that_misses_the_floor_on_unseen_arrivals_is_refused_with_by_how_much() -> None:
    asked = question(Limits(attainment=1.0), rate_hz=1500.0, seconds=1.0)
    found = judge(asked, BASE, BASE)
    assert found.verdict is Verdict.REFUSED
    assert found.missed["attainment"] == pytest.approx(1.0 - found.tuned[0].attainment)
    assert found.missed["attainment"] > 0.0


def test_a_policy_that_alone_keeps_the_limits_is_needed_whatever_it_costs() -> None:
    asked = question(Limits(attainment=0.5, busy_ratio=0.3), rate_hz=60.0, cv=1.0)
    frugal = BASE.model_copy(update={"price_per_cpu_s": 1e3})
    found = judge(asked, BASE, frugal)
    assert found.verdict is Verdict.NEEDED
    assert found.gain.high < 0.0
    assert set(found.base_missed) == {"busy_ratio"}


def test_a_tune_goes_by_the_base_where_nothing_is_proven() -> None:
    tuned = tune(question(rate_hz=20.0, cv=1.0), Effort(budget=30.0))
    assert tuned.judgement.verdict is Verdict.UNPROVEN
    assert tuned.policy == tuned.base
    assert tuned.changes == {}


def test_a_tune_has_no_policy_where_none_keeps_the_limits() -> None:
    tuned = tune(question(Limits(attainment=1.0), rate_hz=1500.0, seconds=0.5), Effort(budget=20.0))
    assert tuned.judgement.verdict is Verdict.REFUSED
    assert tuned.policy is None


def test_a_tune_finds_its_way_back_from_a_bad_base() -> None:
    asked = question(rate_hz=60.0, cv=1.0)
    tuned = tune(replace(asked, ladder=replace(asked.ladder, policy=BAD)), Effort(budget=50.0))
    assert tuned.judgement.verdict is Verdict.BETTER
    assert tuned.policy == tuned.candidate
    assert tuned.candidate.safety_margin_ratio < BAD.safety_margin_ratio
    others = [item.policy.model_dump_json() for item in tuned.runners_up]
    assert len(set(others)) == len(others) > 0
    assert not {tuned.candidate.model_dump_json(), BAD.model_dump_json()} & set(others)
