from __future__ import annotations

from dataclasses import replace

import pytest

from service.domain.errors import InvalidRequest
from service.domain.inference import NO_KNOBS
from service.domain.policy_file import ModelPolicy
from service.domain.variants import Cascade
from service.policy.costs import Plan
from service.policy.idle import idle_answer, idle_answers
from service.policy.latency import Handover
from service.policy.routing import Rules
from tests.builders import LADDER, make_model

AFTER_S = Handover().after_s


def rules(**fields: object) -> Rules:
    return Rules(ModelPolicy.model_validate({"safety_margin_ratio": 0.0, **fields}), {}, 60.0)


def test_answers_begin_where_a_budget_holds_their_prediction() -> None:
    found = idle_answers(make_model(), NO_KNOBS, rules())
    assert [(item.name, item.is_late) for item in found] == [
        ("distilled-quantized", True),
        ("distilled-quantized", False),
        ("pruned-quantized", False),
        ("quantized", False),
        ("full", False),
    ]
    assert [item.from_budget_s for item in found] == pytest.approx(
        [0.0, 0.002 + AFTER_S, 0.005 + AFTER_S, 0.009 + AFTER_S, 0.030 + AFTER_S]
    )


def test_margin_and_price_and_allowed_variants_move_the_answers() -> None:
    assert idle_answers(make_model(), NO_KNOBS, rules(safety_margin_ratio=1.0))[-1].from_budget_s == pytest.approx(
        0.060 + AFTER_S
    )
    assert idle_answers(make_model(), NO_KNOBS, rules(price_per_cpu_s=1.0))[-1].name == "quantized"
    assert idle_answers(make_model(), NO_KNOBS, rules(objective="cost", max_accuracy_loss=0.02))[-1].name == (
        "pruned-quantized"
    )
    allowed = idle_answers(make_model(), NO_KNOBS, rules(variants=["quantized"]))
    assert {item.name for item in allowed} == {"quantized"}


def test_cascades_count_only_where_the_policy_uses_them() -> None:
    cascade = Cascade("distilled-quantized", "full", 0.5, 0.1, 0.918)
    model = make_model(cascades=[cascade])
    without = idle_answers(model, NO_KNOBS, rules(cascades=False, price_per_cpu_s=0.1))
    assert "distilled-quantized+full" not in [item.name for item in without]
    found = {item.name: item for item in idle_answers(model, NO_KNOBS, rules(price_per_cpu_s=0.1))}
    assert found["distilled-quantized+full"].predicted_s == pytest.approx(0.032 + AFTER_S)


def test_a_cascade_with_wider_margins_is_expected_to_cost_more() -> None:
    plan = Plan("small+big", "small", "big", 0.5, 0.2, 0.918)
    assert plan.scaled(1.0) is plan
    wider = plan.scaled(2.0)
    assert (wider.margin, wider.escalated_ratio, wider.accuracy) == (1.0, 0.4, 0.918)
    assert plan.scaled(10.0).escalated_ratio == 1.0
    assert plan.scaled(0.0).margin == 0.0


def test_answer_to_one_budget_is_that_of_its_place_on_the_ladder() -> None:
    for budget_s, name in ((0.001, "distilled-quantized"), (0.010, "quantized"), (1.0, "full")):
        answer = idle_answer(make_model(), replace(NO_KNOBS, budget_s=budget_s), rules())
        assert (answer.name, answer.is_late) == (name, budget_s < 0.002)
    with pytest.raises(InvalidRequest):
        idle_answer(make_model(LADDER), replace(NO_KNOBS, min_accuracy=0.99), rules())
