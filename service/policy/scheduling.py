"""What a free lane runs now: the most accurate level at which the whole queue stays on time.

On CPUs batching gains little, so a burst is survived by spending less on each request, not by larger batches. A rule
that looks at the first request's slack alone spends all of it on an accurate variant and lets those behind be late.
So the decision looks at the queue, which comes in service order: by criticality, then earliest deadline first.

1. The first request that can still be on time is the head; where not all can be saved, it is the first that is worth
   it (``policy.triage``). What is late waits until nothing else does.
2. The level is the most accurate candidate at which all that can be saved stay on time (``policy.pace``). Unless the
   machine is idle but for this request, a candidate that is no more accurate than a cheaper one is none. Where requests
   come fast, the level is also one that keeps up with those that are about to come (``policy.arrivals``).
3. Of the candidates at or below the level the one runs that maximises accuracy - price * seconds. The price of a
   CPU-second, in accuracy, is the operator's and a shortage's (``policy.price``); at price 0 the level's own runs.
4. Requests behind the head that accept the same variant and have the same input shape join while sharing a run is
   cheaper than a run each, nobody in the batch gets late, and the other idle lanes keep their share.

5. Where batching gains and the policy asks for it, the run may be put off for a fuller one (``policy.deferral``).

The level is found again at every decision, so the choice moves down as a burst builds and up as it drains.

A request that waits for the second stage of a cascade has an answer already. It runs only while everybody behind it
stays on time at the level at which the cascade was chosen; else it is settled with the answer that it has.

The idea that the slack of a queue, not the load on arrival, should choose the model is SlackFit's (SuperServe, NSDI
2025), which looks at the head only; scaling accuracy to keep up with demand is Proteus's (ASPLOS 2024), which plans for
seconds ahead; earliest-deadline-first with predictable run times is Clockwork's (OSDI 2020).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from service.policy.costs import JOINS_BELOW, RUN_OVERHEAD_S
from service.policy.deferral import deferred_until_s
from service.policy.pace import level_by_bisection, level_of_alike, look, stays_on_time
from service.policy.price import shortage_price_per_s
from service.policy.situation import ChooseRun, Run, Situation, Waiting
from service.policy.triage import first_to_serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.policy.costs import Costs, Ladder, Step

__all__ = ["ChooseRun", "Run", "Situation", "Waiting", "choose_run"]

SEARCHED_FOR_HEAD: Final = 256
"""Requests that one decision looks at for one that can still be on time, or else within its hard deadline."""
_MOST_JOINING: Final = 256


def choose_run(queue: Sequence[Waiting], situation: Situation) -> Run | None:
    """Decide what the free lane runs now; ``None`` when nothing in the queue can meet its hard deadline.

    ``queue`` is in service order and holds nothing that has expired.
    """
    found = _first_timely(queue, situation)
    if found is None:
        return _late_run(queue, situation)
    head, ladder = found
    if queue[head].kept_level is not None:
        return _second_stage(queue, head, situation)
    head = first_to_serve(queue, head, ladder, situation)  # of the same candidates, so the ladder stays
    first, costs = queue[head], situation.costs
    slack_s = first.due_s - situation.now_s
    if costs.plans and ladder.longest_s > slack_s:
        ladder = costs.ladder_within(first.candidates, first.rows, slack_s)
    if len(queue) - head > 1 or max(situation.lanes_free_s) > situation.now_s:
        ladder = ladder.thrifty  # somebody else needs the time that the same accuracy would cost
    step = _choose_step(queue, head, ladder, situation)
    plan = costs.plans.get(step.name)
    variant = plan.variant if plan else step.name
    members = _share(queue, head, step.name, situation)
    rows = first.rows if len(members) == 1 else sum([queue[index].rows for index in members])
    run = Run(variant, members, costs.of(variant, rows), plan=step.name if plan else "")
    if situation.arrival_rate_hz:
        until_s = deferred_until_s(queue, run, ladder, situation)
        return replace(run, wait_until_s=until_s) if until_s > situation.now_s else run
    return run


def _first_timely(queue: Sequence[Waiting], situation: Situation) -> tuple[int, Ladder] | None:
    costs, now_s = situation.costs, situation.now_s
    for index in range(min(len(queue), SEARCHED_FOR_HEAD)):
        item = queue[index]
        ladder = costs.ladder(item.candidates, item.rows)
        if now_s + ladder.fastest.cost_s <= item.due_s:
            return index, ladder
    return None


def _late_run(queue: Sequence[Waiting], situation: Situation) -> Run | None:
    costs = situation.costs
    # On an idle machine a run that may be for nobody costs nobody anything, and teaches how long it takes now.
    is_idle = len(queue) == 1 and max(situation.lanes_free_s) <= situation.now_s
    for index in range(min(len(queue), SEARCHED_FOR_HEAD)):
        item = queue[index]
        if item.kept_level is not None:
            return Run("", (index,), 0.0, is_settled=True)
        variant = min((name for name in item.candidates if name not in costs.plans), key=_seconds(costs, item.rows))
        predicted_s = costs.of(variant, item.rows)
        if situation.now_s + predicted_s <= item.deadline_s - (0.0 if is_idle else item.aside_s):
            return Run(variant, (index,), predicted_s, is_late=True)
    return None


def _seconds(costs: Costs, rows: int) -> Callable[[str], float]:
    return lambda name: costs.of(name, rows)


def _second_stage(queue: Sequence[Waiting], head: int, situation: Situation) -> Run:
    first = queue[head]
    level = first.kept_level or 0.0
    if stays_on_time(look(queue, head, situation), level):
        variant = first.candidates[0]
        return Run(variant, (head,), situation.costs.of(variant, first.rows))
    return Run("", (head,), 0.0, is_settled=True)


def _choose_step(queue: Sequence[Waiting], head: int, ladder: Ladder, situation: Situation) -> Step:
    slack_s = queue[head].due_s - situation.now_s
    fitting: Sequence[Step] = ladder.steps
    if ladder.longest_s > slack_s:
        fitting = tuple([step for step in fitting if step.worst_s <= slack_s]) or (ladder.fastest,)
    if len(queue) - head > 1 and len(fitting) > 1:
        together = _most_sharing(queue, head, fitting[0], situation)
        turns_s = situation.costs.turns_s(ladder, queue[head].rows, together)
        level = level_of_alike(queue, head, turns_s, situation)
        if level is None:
            fitting = fitting[level_by_bisection(look(queue, head, situation), fitting) :]
        elif level:
            most_s = ladder.steps[level].cost_s
            fitting = tuple([step for step in fitting if step.cost_s <= most_s])
    if situation.accuracy_loss:
        fitting = _cheapest_within(ladder.steps[0].accuracy - situation.accuracy_loss, fitting)
    if situation.price_per_s or situation.shortage:
        return _worth_its_price(fitting, ladder, (queue, head), situation)
    return fitting[0]


def _most_sharing(queue: Sequence[Waiting], head: int, best: Step, situation: Situation) -> int:
    """Return how many requests like the first may share a run, if the idle lanes keep their part."""
    first = queue[head]
    if not first.may_share:
        return 1
    fair_share = -(-(len(queue) - head) // _free_soon(best.cost_s, situation))
    return max(1, min(situation.max_rows // first.rows, fair_share))


def _worth_its_price(
    steps: Sequence[Step], ladder: Ladder, place: tuple[Sequence[Waiting], int], situation: Situation
) -> Step:
    """Return the first step that gains, against every cheaper one, the price of the seconds that it takes more."""
    queue, head = place
    busy_s = sum(max(0.0, moment - situation.now_s) for moment in situation.lanes_free_s)
    time_s = len(situation.lanes_free_s) * max(queue[-1].due_s - situation.now_s, 1e-9)
    for step in steps:
        filled = (busy_s + (len(queue) - head) * step.cost_s) / time_s
        price_per_s = situation.price_per_s + shortage_price_per_s(ladder.fastest, situation.shortage, filled)
        if ladder.gains_per_s[step.name] >= price_per_s:
            return step
    return steps[-1]


def _cheapest_within(floor: float, steps: Sequence[Step]) -> Sequence[Step]:
    """Return the steps from the cheapest that is at least so accurate; all of them where none is."""
    enough = sum(step.accuracy >= floor for step in steps)
    return steps[max(0, enough - 1) :]


def _free_soon(within_s: float, situation: Situation) -> int:
    """Return how many lanes, the deciding one included, will be free within so long."""
    until_s = situation.now_s + within_s
    return max(1, sum([moment <= until_s for moment in situation.lanes_free_s]))


def _share(queue: Sequence[Waiting], head: int, name: str, situation: Situation) -> tuple[int, ...]:
    first, queued = queue[head], len(queue) - head
    if queued == 1 or not first.may_share or first.rows >= situation.max_rows:
        return (head,)
    costs, plan = situation.costs, situation.costs.plans.get(name)
    variant = plan.variant if plan else name
    rows, total_s, tightest_s = first.rows, costs.of(variant, first.rows), first.due_s - situation.now_s
    members, fair_share = [head], -(-queued // _free_soon(total_s, situation))
    for index in range(head + 1, min(len(queue), head + _MOST_JOINING)):
        if len(members) >= fair_share:
            break
        item = queue[index]
        together = rows + item.rows
        if together > situation.max_rows or not _can_join(item, first, name):
            continue
        together_s, tightest_s = costs.of(variant, together), min(tightest_s, item.due_s - situation.now_s)
        worth_s = JOINS_BELOW * (costs.of(variant, item.rows) + RUN_OVERHEAD_S)
        if together_s > tightest_s or together_s - total_s > worth_s:
            break
        members.append(index)
        rows, total_s = together, together_s
    return tuple(members)


def _can_join(item: Waiting, first: Waiting, name: str) -> bool:
    may = item.may_share and item.kept_level is None and item.batch_key == first.batch_key
    return may and (item.candidates is first.candidates or name in item.candidates)
