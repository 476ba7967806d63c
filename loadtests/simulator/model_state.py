"""One model inside one simulated gateway: its queue, its predictions, and the real times of its runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtests.simulator.ladder import DRAWS, draw_table
from service.policy.costs import Costs
from service.policy.deadline_queue import DeadlineQueue
from service.policy.desk import Standing
from service.policy.latency import Correction

if TYPE_CHECKING:
    from loadtests.simulator.fleet import Machine
    from loadtests.simulator.ladder import Ladder
    from service.policy.situation import Waiting

_RELAX_EVERY_S: Final = 0.02
"""As in the gateway: how long predictions are kept before corrections are asked again."""

_UNMEASURED_S: Final = 1.0
"""As in the gateway: after so long without a run a variant's correction may be out of date."""


@dataclass(slots=True, eq=False)
class Queued:
    """One request in a gateway: what the desk asks of it, and who it is.

    ``kept`` is the place of the variant that has answered it already, and the hard deadline, while a second stage is
    awaited; ``until_s`` is when its waiting ends.
    """

    index: int
    model: ModelState
    criticality: int
    fastest_s: float
    luck: float
    waiting: Waiting
    order: tuple[bool, int, float, int] = (False, 0, 0.0, 0)
    is_queued: bool = False
    until_s: float = 0.0
    kept: tuple[int, float] | None = None


class ModelState:
    """The queue, the standing and the predictions of one model."""

    def __init__(self, ladder: Ladder, machine: Machine, *, uses_plans: bool = False) -> None:
        """Start with an empty queue and the profile's predictions."""
        self.queue: DeadlineQueue[Queued] = DeadlineQueue()
        self.standing = Standing()
        self.policy = ladder.policy
        self.max_rows = ladder.max_rows
        self.places = {name: place for place, name in enumerate(ladder.names)}
        self._ladder = ladder
        self._machine = machine
        self._costs = ladder.costs(uses_plans=uses_plans)
        self._costs_until_s = 0.0
        self._corrections = {name: Correction() for name in ladder.names}
        self.standing.watch_arrivals(self._costs.tables, ladder.policy)
        self._draws: dict[tuple[str, int], tuple[float, ...]] = {}

    def costs(self, now_s: float) -> Costs:
        """Return the predictions now."""
        if self._machine.is_learning and now_s >= self._costs_until_s:
            self._correct({name: correction.at(now_s) for name, correction in self._corrections.items()})
            self._costs_until_s = now_s + _RELAX_EVERY_S
        return self._costs

    def calm_costs(self, now_s: float) -> Costs:
        """Return them with variants that were not measured lately as fast as on a calm machine."""
        if not self._machine.is_learning:
            return self._costs
        ratios = {
            name: item.base if now_s - item.updated_s > _UNMEASURED_S else item.at(now_s)
            for name, item in self._corrections.items()
        }
        return Costs(self._costs.tables, ratios, self._costs.accuracy, self._costs.plans)

    def candidates(self, variants: tuple[str, ...]) -> tuple[str, ...]:
        """Return variants and the plans that need no other variant, most accurate first."""
        plans, accuracy = self._costs.plans, self._costs.accuracy
        usable = [name for name, plan in plans.items() if {plan.variant, plan.escalate_to} <= set(variants)]
        if not usable:
            return variants
        every = {**accuracy, **{name: plan.accuracy for name, plan in plans.items()}}
        return tuple(sorted((*variants, *usable), key=lambda name: -every[name]))

    def margin(self, variant: str, row: int) -> float:
        """Return the margin between the two best classes that a variant sees in a row of the answer sheet."""
        return self._ladder.margin(variant, row)

    def compute_s(self, variant: str, rows: int, luck: float) -> float:
        """Return the real compute time of a run, ``luck`` (0..1) being its place in the distribution."""
        table = self._draws.get((variant, rows))
        if table is None:
            profile = self._ladder.real(self._ladder.variants[self.places[variant]])
            table = draw_table(profile.at(rows).scaled(self._machine.ratio), is_exact=self._machine.is_exact)
            self._draws[variant, rows] = table
        return table[int(luck * DRAWS)]

    def learn(self, variant: str, rows: int, compute_s: float, now_s: float) -> None:
        """Correct a variant's prediction by one finished run."""
        profile = self._ladder.variants[self.places[variant]].profile
        correction = self._corrections[variant]
        correction.observe(compute_s, profile.at(rows).p50_s, now_s)
        self._correct({**self._costs.ratios, variant: correction.ratio})

    def _correct(self, ratios: dict[str, float]) -> None:
        self._costs = Costs(self._costs.tables, ratios, self._costs.accuracy, self._costs.plans)
