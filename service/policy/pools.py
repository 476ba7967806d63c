"""Who takes what, where some variants run elsewhere: a queue shared out among groups of lanes.

A lane of this machine runs every local variant, a lane that calls another server only the variant that is there. Each
lane still decides when it is free, by ``choose_run``, but over its own part of the queue:

* In service order each request goes to the group whose candidate is worth most of those that could be on time there:
  the most accurate one, less its price, or where the objective is cost the cheapest that is accurate enough. A group
  could be on time with a candidate if the lane that is free first, and then that candidate, end before the due moment;
  whoever is given to a group occupies it for the turn that a full batch would take of each member.
* A request that no group is known to have in time belongs to all that could run it: whoever is free takes it, and the
  local lanes find the level at which as many as possible are on time after all (``policy.pace``).

Every lane reckons the same from the same state, so they agree without talking. A lane that leaves requests to others
counts on their predicted times; it says until when (``look_s``): at the latest moment at which the others would have
to begin it looks again, and finds them no longer in time.

So what is more accurate elsewhere is asked for as long as it keeps up, the rest is done here as if there were nothing
else, and the other way round: a variant elsewhere that is less accurate takes what local lanes would be late with.

It is wrong where a first-come split is: an early request with much time may take the place of a later one with little.
Earliest deadlines come first, so such a pair has unlike budgets, and the later one finds the local lanes.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from service.policy.costs import RUN_OVERHEAD_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.policy.costs import Costs, Ladder, Step
    from service.policy.situation import Situation, Waiting

LOCAL: Final = ""
"""The group of this machine's own lanes."""

_SHARED_OUT: Final = 256
"""So many first requests are shared out; those behind them belong to everybody until they come closer."""

_FLOOR_ADVANTAGE: Final = 1e6


def pool_name(model: str, variant: str) -> str:
    """Return the name of a remote variant's lanes, which is also what it is called on the other server by default."""
    return f"{model}--{variant}"


def group_of(candidate: str, costs: Costs, pools: Mapping[str, str]) -> str:
    """Return the group whose lanes begin a candidate: a variant's, or that of a cascade's first variant."""
    plan = costs.plans.get(candidate)
    return pools.get(plan.variant if plan else candidate, LOCAL)


@dataclass(slots=True)
class Part:
    """One group's part of a queue: positions, and the requests there with the candidates that the group can run.

    Before ``look_s`` nothing else of the queue is for this group.
    """

    positions: list[int] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    look_s: float = math.inf


@dataclass(slots=True)
class _Option:
    """What one group can do for requests that ask alike."""

    group: str
    candidates: tuple[str, ...]
    ladder: Ladder
    turns_s: Sequence[float]


@dataclass(slots=True)
class _Sharing:
    """The state of one sharing-out: when each group's lanes are free, in heaps."""

    pools: Mapping[str, str]
    free_s: Mapping[str, list[float]]
    situation: Situation
    _options: dict[tuple[int, int], list[_Option]] = field(default_factory=dict)

    def options(self, item: Waiting) -> list[_Option]:
        key = (id(item.candidates), item.rows)  # the queue holds the candidates for as long as this lasts
        found = self._options.get(key)
        if found is None:
            found = self._options[key] = self._make_options(item)
        return found

    def _make_options(self, item: Waiting) -> list[_Option]:
        costs, by_group = self.situation.costs, dict[str, list[str]]()
        for name in item.candidates:
            group = group_of(name, costs, self.pools)
            if self.free_s.get(group):
                by_group.setdefault(group, []).append(name)
        together = max(1, self.situation.max_rows // item.rows) if item.may_share else 1
        options = []
        for group, names in by_group.items():
            candidates = item.candidates if len(names) == len(item.candidates) else tuple(names)
            ladder = costs.ladder(candidates, item.rows)
            options.append(_Option(group, candidates, ladder, costs.turns_s(ladder, item.rows, together)))
        return options

    def best(self, item: Waiting, options: list[_Option]) -> tuple[_Option, int] | None:
        """Return the group, and the place on its ladder, that is worth most of what is on time."""
        found, most = None, (-math.inf, -math.inf)  # equals go by the candidates' order
        floor = max(step.accuracy for option in options for step in option.ladder.steps) - self.situation.accuracy_loss
        for option in options:
            start_s = self.free_s[option.group][0]
            for place, step in enumerate(option.ladder.steps):
                finish_s = start_s + step.cost_s
                if finish_s <= item.due_s:
                    worth = (self._worth(step, floor), -item.candidates.index(step.name))
                    if worth > most:
                        found, most = (option, place), worth
        return found

    def _worth(self, step: Step, floor: float) -> float:
        if not self.situation.accuracy_loss:
            return step.accuracy - self.situation.price_per_s * step.cost_s
        return _FLOOR_ADVANTAGE - step.cost_s if step.accuracy >= floor else step.accuracy

    def occupy(self, option: _Option, place: int) -> None:
        free_s = self.free_s[option.group]
        heapq.heapreplace(free_s, free_s[0] + option.turns_s[place] + RUN_OVERHEAD_S)


def part_of(
    queue: Sequence[Waiting],
    group: str,
    pools: Mapping[str, str],
    free_s: Mapping[str, Sequence[float]],
    situation: Situation,
) -> Part:
    """Share a queue out and return one group's part.

    ``pools`` names the group of every variant that is not local; ``free_s`` is when the usable lanes of each group are
    free, none where it cannot be used now.
    """
    now_s, part = situation.now_s, Part()
    heaps = {name: sorted(max(now_s, moment) for moment in moments) for name, moments in free_s.items()}
    sharing = _Sharing(pools, heaps, situation)
    for position in range(len(queue)):
        item = queue[position]
        options = sharing.options(item)
        own = next((option for option in options if option.group == group), None)
        best = sharing.best(item, options) if options and position < _SHARED_OUT else None
        if best is not None:
            option, place = best
            sharing.occupy(option, place)
            if own is not None and option is not own:
                part.look_s = min(part.look_s, item.due_s - option.ladder.steps[place].cost_s)
                continue
        if own is not None:
            part.positions.append(position)
            part.waiting.append(item if own.candidates is item.candidates else replace(item, candidates=own.candidates))
    return part
