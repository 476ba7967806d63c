"""What each candidate of a request costs now, and what it gives: the ladder that scheduling climbs.

A *candidate* is a variant or a cascade plan. A variant costs its predicted compute time. A *plan* answers with a small
variant and asks a bigger one where the small one's margin between its two best classes is low; its cost is the
expected one, small + escalated_ratio * big, and its accuracy the one that the build measured for the two together.
Plans stand between variants like variants of their own, so that the choice of a level needs no second rule for them.

A candidate that is not cheaper than a more accurate one is of no use and left out of the ladder. That depends on the
corrections of this moment, so ladders are made anew whenever these change, and kept in between.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.policy.situation import Waiting

RUN_OVERHEAD_S: Final = 60e-6
"""What starting one more run costs besides its compute: measured, a hand-over to a lane and back."""

JOINS_BELOW: Final = 0.9
"""A request joins a run where it adds at most this share of a run of its own: a lane with a long run is late for the
next decision, which a small saving does not repay."""

_NEAR_THE_LEAST: Final = 1.05
"""A run is large enough where a larger one saves less than a twentieth of each request's turn."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A cascade: ``variant`` answers; where its margin is below ``margin``, ``escalate_to`` is asked as well.

    ``escalated_ratio`` is the expected share of requests that escalate, ``accuracy`` that of the answers given.
    """

    name: str
    variant: str
    escalate_to: str
    margin: float
    escalated_ratio: float
    accuracy: float

    def scaled(self, ratio: float) -> Plan:
        """Return the plan with its margin times ``ratio``.

        The share that escalates is taken to grow in proportion, as it does where margins near zero are spread evenly;
        the accuracy stays what was measured at a ratio of one.
        """
        if ratio == 1.0:
            return self
        return replace(self, margin=self.margin * ratio, escalated_ratio=min(1.0, self.escalated_ratio * ratio))


class Step(NamedTuple):
    """One candidate for a number of rows: expected seconds, the most it can take, and expected accuracy (0..1)."""

    name: str
    cost_s: float
    worst_s: float
    accuracy: float


class Sizes(NamedTuple):
    """How long a variant's runs take by how many requests share them, from one up.

    ``good_s`` is the time of the smallest run in which a request's turn of a lane, ``good_turn_s``, is near the least.
    """

    times_s: tuple[float, ...]
    good_s: float
    good_turn_s: float

    def turn_within_s(self, slack_s: float) -> float:
        """Return a request's turn in the largest run that ends within a slack, at least in a run of its own."""
        size = max(1, bisect_right(self.times_s, slack_s))
        return (self.times_s[size - 1] + RUN_OVERHEAD_S) / size


@dataclass(slots=True)
class Ladder:
    """The useful candidates of requests that ask alike: most accurate first, each cheaper than the one before."""

    steps: tuple[Step, ...]
    _longest_s: float = 0.0
    _minus_accuracy: tuple[float, ...] = ()
    _gains_per_s: dict[str, float] = field(default_factory=dict)
    _thrifty: Ladder | None = None
    kept_turns_s: dict[int, tuple[float, ...]] = field(default_factory=dict)
    kept_sizes: dict[int, Sizes] = field(default_factory=dict)

    @property
    def fastest(self) -> Step:
        """The cheapest step."""
        return self.steps[-1]

    @property
    def longest_s(self) -> float:
        """The most that any step can take."""
        if not self._longest_s:
            self._longest_s = max([step.worst_s for step in self.steps])
        return self._longest_s

    @property
    def gains_per_s(self) -> Mapping[str, float]:
        """What a second more gains in accuracy by step, at the least against any cheaper one; of the cheapest, inf."""
        if not self._gains_per_s:
            for place, step in enumerate(self.steps):
                self._gains_per_s[step.name] = _least_gain_per_s(step, self.steps[place + 1 :])
        return self._gains_per_s

    @property
    def thrifty(self) -> Ladder:
        """The ladder without the steps that are no more accurate than a cheaper one."""
        if self._thrifty is None:
            levels = {step.accuracy: step for step in self.steps}  # of equals the last one stays, which is the cheapest
            self._thrifty = self if len(levels) == len(self.steps) else Ladder(tuple(levels.values()))
        return self._thrifty

    def at(self, level: float) -> Step:
        """Return the most accurate step not above ``level``, the cheapest where all are above."""
        if not self._minus_accuracy:
            self._minus_accuracy = tuple([-step.accuracy for step in self.steps[:-1]])
        return self.steps[bisect_left(self._minus_accuracy, -level)]


def _least_gain_per_s(step: Step, cheaper: tuple[Step, ...]) -> float:
    gains = ((step.accuracy - other.accuracy) / (step.cost_s - other.cost_s) for other in cheaper)
    return min(gains, default=math.inf)


@dataclass(frozen=True, slots=True)
class Costs:
    """Predicted compute seconds by variant and rows, on this machine now."""

    tables: Mapping[str, tuple[float, ...]]
    ratios: Mapping[str, float]
    accuracy: Mapping[str, float]
    plans: Mapping[str, Plan] = field(default_factory=dict)
    _ladders: dict[tuple[tuple[str, ...], int], Ladder] = field(default_factory=dict, compare=False, repr=False)
    _shared: dict[int, float] = field(default_factory=dict, compare=False, repr=False)

    def of(self, variant: str, rows: int) -> float:
        """Return the predicted compute time of a run."""
        return self.tables[variant][rows] * self.ratios[variant]

    def shared_ratio(self, rows: int) -> float:
        """Return what a request takes at the least in a full run of so many rows, over what it takes alone (0..1)."""
        found = self._shared.get(rows)
        if found is None:
            shares = [table[rows] / (rows * table[1]) for table in self.tables.values() if table[1] > 0]
            found = self._shared[rows] = min([1.0, *shares])
        return found

    def fastest_s(self, waiting: Waiting) -> float:
        """Return the predicted time of a request's fastest candidate."""
        return self.ladder(waiting.candidates, waiting.rows).fastest.cost_s

    def ladder(self, candidates: tuple[str, ...], rows: int) -> Ladder:
        """Return the ladder of these candidates, which come most accurate first."""
        found = self._ladders.get((candidates, rows))
        if found is None:
            found = self._ladders[candidates, rows] = self._climb(candidates, rows)
        return found

    def ladder_within(self, candidates: tuple[str, ...], rows: int, slack_s: float) -> Ladder:
        """Return the ladder without the plans that could take longer: they must not hide a variant that fits."""
        ladder = self.ladder(candidates, rows)
        if ladder.longest_s <= slack_s or not self.plans:
            return ladder
        longer = {plan.name for plan in self.plans.values() if self._step(plan, rows).worst_s > slack_s}
        return self.ladder(tuple([name for name in candidates if name not in longer]) or candidates, rows)

    def turns_s(self, ladder: Ladder, rows: int, together: int) -> tuple[float, ...]:
        """Return by step how long a request takes of a lane, where so many can share a run."""
        found = ladder.kept_turns_s.get(together)
        if found is None:
            found = tuple([self._turn_s(step, together * rows, together) for step in ladder.steps])
            ladder.kept_turns_s[together] = found
        return found

    def sizes(self, ladder: Ladder, rows: int, most: int) -> Sizes:
        """Return how the runs of a ladder's fastest variant depend on how many requests of so many rows share them."""
        found = ladder.kept_sizes.get(most)
        if found is None:
            name = ladder.fastest.name
            times_s = tuple([self.of(name, size * rows) for size in range(1, most + 1)])
            turns_s = [(time_s + RUN_OVERHEAD_S) / size for size, time_s in enumerate(times_s, 1)]
            enough_s = min(turns_s) * _NEAR_THE_LEAST
            good = next(place for place, turn_s in enumerate(turns_s) if turn_s <= enough_s)
            found = ladder.kept_sizes[most] = Sizes(times_s, times_s[good], turns_s[good])
        return found

    def _turn_s(self, step: Step, rows: int, together: int) -> float:
        plan = self.plans.get(step.name)
        first = plan.variant if plan else step.name
        shared_s = (self.of(first, rows) + RUN_OVERHEAD_S) / together
        if plan:  # second stages run alone
            shared_s += plan.escalated_ratio * (self.of(plan.escalate_to, rows // together) + RUN_OVERHEAD_S)
        return min(step.cost_s + RUN_OVERHEAD_S, shared_s)

    def _climb(self, candidates: tuple[str, ...], rows: int) -> Ladder:
        steps: list[Step] = []
        plans, tables, ratios = self.plans, self.tables, self.ratios
        for name in candidates:
            if name in plans:
                step = self._step(plans[name], rows)
            else:
                cost_s = tables[name][rows] * ratios[name]
                step = Step(name, cost_s, cost_s, self.accuracy[name])
            if not steps or step.cost_s < steps[-1].cost_s:
                steps.append(step)
        return Ladder(tuple(steps))

    def _step(self, plan: Plan, rows: int) -> Step:
        small_s, big_s = self.of(plan.variant, rows), self.of(plan.escalate_to, rows)
        return Step(plan.name, small_s + plan.escalated_ratio * big_s, small_s + big_s, plan.accuracy)
