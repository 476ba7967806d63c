from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.simulator.ladder import AnswerSheet
from loadtests.tuner.question import Limits
from loadtests.tuner.space import make_space
from service.domain.policy_file import ModelPolicy
from service.policy.costs import Plan
from tests.loadtests.tuner.questions import FIGURES, ladder, question


def test_the_start_is_the_base_policy() -> None:
    space = make_space(question())
    assert space.policy(space.start) == question().base


def test_a_base_with_values_of_its_own_is_in_the_space() -> None:
    own = ModelPolicy(burst_price=0.0123, max_batch_size=3, safety_margin_ratio=0.33, max_queued=77)
    space = make_space(replace(question(), ladder=ladder(own)))
    assert space.policy(space.start) == own


def test_neighbours_differ_in_one_threshold_and_the_ends_have_fewer() -> None:
    space = make_space(question())
    for candidate in (space.start, tuple(0 for _ in space.dimensions)):
        around = space.neighbours(candidate)
        assert len(around) == len(set(around))
        for item in around:
            assert sum(new != old for new, old in zip(item, candidate, strict=True)) == 1
            space.policy(item)


def test_every_drawn_candidate_is_a_valid_policy() -> None:
    space, rng = make_space(question(Limits(busy_ratio=0.5))), np.random.default_rng(0)
    for _ in range(100):
        space.policy(space.draw(rng))


def test_a_price_of_cpu_time_is_searched_only_where_cpu_time_counts() -> None:
    def fields(limits: Limits) -> set[str]:
        return {item.field for item in make_space(question(limits)).dimensions}

    assert "price_per_cpu_s" not in fields(Limits())
    assert "price_per_cpu_s" in fields(Limits(busy_ratio=0.5))
    assert "price_per_cpu_s" in fields(Limits(objective="cost"))
    assert "cascades" not in fields(Limits())


def test_cascades_are_searched_where_the_model_has_some() -> None:
    sheet = AnswerSheet(tuple(FIGURES), np.ones((3, 4), np.bool_), np.ones((3, 4), np.float32))
    plans = (Plan("distilled+full", "distilled", "full", 0.5, 0.2, 0.91),)
    asked = replace(question(), ladder=replace(ladder(), answers=sheet, plans=plans))
    assert "cascades" in {item.field for item in make_space(asked).dimensions}


def test_a_memory_ceiling_leaves_sets_that_fit_and_to_which_nothing_can_be_added() -> None:
    asked = question(Limits(memory_bytes=2.5 * 2**20))
    space = make_space(asked)
    sets = next(item.values for item in space.dimensions if item.field == "variants")
    assert set(sets) == {("full", "quantized"), ("full", "distilled"), ("quantized", "distilled")}
    assert space.policy(space.start).variants in sets
    fleet = asked.fleet(space.policy(space.start))
    assert fleet.models[0].names == space.policy(space.start).variants


def test_a_memory_ceiling_below_every_variant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the smallest needs 1\.0 MiB"):
        make_space(question(Limits(memory_bytes=2**19)))
