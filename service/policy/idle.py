"""What an idle machine answers one lone request with, for every budget: a policy file made visible.

The gateway's own ``choose_route`` and ``choose_run`` are asked, with the manifest's profiles as the machine's speed.
Where the answer changes as the budget grows is found by asking, not by a formula of its own: on a logarithmic grid,
then by bisection between neighbours that differ.

The gateway under load chooses smaller variants than this, and a machine of another speed has other limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from service.policy.costs import Costs, Plan
from service.policy.latency import Handover, safe_table
from service.policy.routing import choose_route
from service.policy.scheduling import choose_run
from service.policy.situation import Situation, Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.domain.inference import Knobs
    from service.domain.variants import Cascade, ModelInfo
    from service.policy.routing import Route, Rules

_GRID_STEP: Final = 1.03
_BISECTIONS: Final = 30
_LONGEST_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class IdleAnswer:
    """From ``from_budget_s`` up an idle machine answers with this; ``is_late`` where even that breaks the budget.

    ``predicted_s`` is the longest that it is expected to take, the hand-over behind the run included.
    """

    from_budget_s: float
    name: str
    predicted_s: float
    accuracy: float
    is_late: bool = False


def idle_answer(model: ModelInfo, knobs: Knobs, rules: Rules) -> IdleAnswer:
    """Return the answer to one request with these knobs, at its own budget.

    Raises:
        InvalidRequest, VariantNotFound, ModelNotReady: As ``choose_route``.
    """
    route = choose_route(model, knobs, rules, _usable(model))
    return _answer(_Asked(model, rules, route), route.budget_s)


def idle_answers(model: ModelInfo, knobs: Knobs, rules: Rules) -> Sequence[IdleAnswer]:
    """Return what answers as the budget grows, each from the budget up at which it begins; the first from zero.

    Raises:
        InvalidRequest, VariantNotFound, ModelNotReady: As ``choose_route``.
    """
    asked = _Asked(model, rules, choose_route(model, knobs, rules, _usable(model)))
    budget_s = asked.costs.ladder(asked.names, 1).fastest.worst_s / 2
    found = [replace(_answer(asked, budget_s), from_budget_s=0.0)]
    while budget_s < _LONGEST_S:
        above_s = budget_s * _GRID_STEP
        while _differs(_answer(asked, above_s), found[-1]):
            found.append(_first_that_differs(asked, max(budget_s, found[-1].from_budget_s), above_s))
        budget_s = above_s
    return found


def _first_that_differs(asked: _Asked, below_s: float, above_s: float) -> IdleAnswer:
    old = _answer(asked, below_s)
    for _ in range(_BISECTIONS):
        middle_s = (below_s + above_s) / 2
        if _differs(_answer(asked, middle_s), old):
            above_s = middle_s
        else:
            below_s = middle_s
    return _answer(asked, above_s)


def _differs(one: IdleAnswer, other: IdleAnswer) -> bool:
    return (one.name, one.is_late) != (other.name, other.is_late)


class _Asked:
    """One request's candidates and what they cost."""

    def __init__(self, model: ModelInfo, rules: Rules, route: Route) -> None:
        variants = [item for item in model.variants if item.profile.cells]
        ratio = rules.policy.cascade_margin_ratio
        plans = [_plan(item).scaled(ratio) for item in model.cascades] if _uses_cascades(rules, route) else []
        self.rules = rules
        self.accuracy = {item.name: item.accuracy for item in variants}
        self.plans = {plan.name: plan for plan in plans}
        tables = {item.name: safe_table(item, rules.policy, model.max_batch_size) for item in variants}
        self.costs = Costs(tables, dict.fromkeys(tables, 1.0), self.accuracy, self.plans)
        names = [item.name for item in route.candidates]
        usable = [plan.name for plan in plans if {plan.variant, plan.escalate_to} <= set(names)]
        self.accuracy |= {plan.name: plan.accuracy for plan in plans}
        self.names = tuple(sorted([*names, *usable], key=lambda name: -self.accuracy[name]))


def _answer(asked: _Asked, budget_s: float) -> IdleAnswer:
    after_s, policy = Handover().after_s, asked.rules.policy
    waiting = Waiting(max(0.0, budget_s - after_s), math.inf, 1, asked.names, None)
    situation = Situation(
        costs=asked.costs,
        now_s=0.0,
        lanes_free_s=(0.0,),
        max_rows=1,
        price_per_s=policy.price_per_cpu_s,
        accuracy_loss=policy.max_accuracy_loss if policy.objective == "cost" else 0.0,
        shortage=policy.burst_price,
    )
    run = choose_run((waiting,), situation)
    assert run is not None  # noqa: S101 - without a hard deadline something always runs
    name = run.plan or run.variant
    steps = asked.costs.ladder((name,), 1).steps
    return IdleAnswer(budget_s, name, steps[0].worst_s + after_s, asked.accuracy[name], run.is_late)


def _uses_cascades(rules: Rules, route: Route) -> bool:
    return rules.policy.cascades and not route.is_pinned


def _plan(cascade: Cascade) -> Plan:
    pair = (cascade.variant, cascade.escalate_to)
    return Plan("+".join(pair), *pair, cascade.margin, cascade.escalated_ratio, cascade.accuracy)


def _usable(model: ModelInfo) -> frozenset[str]:
    return frozenset(item.name for item in model.variants if item.profile.cells)
