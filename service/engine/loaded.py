"""A model in memory: its backends, how fast they are here and now, and which of them may answer.

Lanes learn and the event loop asks, at the same time. What is predicted changes under a lock of its own; all else is
read as single references, or in dictionaries whose keys never change after loading, so that a reader sees either the
old or the new value.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from service.engine.known_routes import KnownRoutes
from service.policy.costs import Costs, Plan
from service.policy.deadline_queue import DeadlineQueue
from service.policy.desk import Standing
from service.policy.judged import judge
from service.policy.latency import Claim, Correction, Median, safe_table
from service.policy.scheduling import choose_run
from service.policy.situation import Situation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from service.domain.inference import Knobs
    from service.domain.policy_file import ModelPolicy
    from service.domain.variants import Cascade, ModelInfo, Variant
    from service.domain.verdicts import Verdict
    from service.engine.backends.backend import Backend, RemoteBackend
    from service.engine.drift.references import ModelReference
    from service.engine.repository import StoredFile
    from service.engine.ticket import Outcome, Ticket
    from service.policy.routing import Route, Rules
    from service.policy.situation import Waiting

_FAILURES_TO_TAKE_OUT: Final = 3
_REST_S: Final = 30.0
_RELAX_EVERY_S: Final = 0.02
_NO_INLINE_S: Final = 60.0
_UNMEASURED_S: Final = 1.0
_PLENTY_S: Final = 1e6
_NOTICED: Final = 0.02


def _plan(cascade: Cascade) -> Plan:
    name = f"{cascade.variant}+{cascade.escalate_to}@{cascade.escalated_ratio:.3f}"
    pair = (cascade.variant, cascade.escalate_to)
    return Plan(name, *pair, cascade.margin, cascade.escalated_ratio, cascade.accuracy)


@dataclass(slots=True)
class VariantHealth:
    """Failures in a row that another variant's success showed to be this one's fault."""

    failures: int = 0
    out_until_s: float = 0.0

    def is_out(self, now_s: float) -> bool:
        """Tell whether the variant rests; after the rest it is tried again."""
        return now_s < self.out_until_s


@dataclass(slots=True, eq=False)
class LoadedModel:
    """One model, loaded; ``problems`` holds the variants that are not, with the reason.

    ``evicted`` are those that were taken out of memory, or never fitted, and are loaded when a request needs them.
    ``reference`` is what drift is told by, ``verdicts`` are what it says of some variants, and ``on_answer`` is told of
    every answer, on the event loop's thread.
    """

    info: ModelInfo
    rules: Rules
    backends: Mapping[str, Backend]
    problems: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    evicted: frozenset[str] = frozenset()
    corrections: dict[str, Correction] = field(default_factory=dict)
    health: dict[str, VariantHealth] = field(default_factory=dict)
    tables: dict[str, tuple[float, ...]] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    queue: DeadlineQueue[Ticket] = field(default_factory=DeadlineQueue)
    standing: Standing = field(default_factory=Standing)
    plans: dict[str, Plan] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    remote: Mapping[str, RemoteBackend] = field(default_factory=dict)
    reference: ModelReference | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    on_answer: Callable[[Ticket, Outcome], None] | None = None
    _costs: Costs = field(default_factory=lambda: Costs({}, {}, {}))
    _costs_until_s: float = -math.inf
    _no_inline_until_s: float = -math.inf
    _learning: threading.Lock = field(default_factory=threading.Lock)
    _routes: KnownRoutes = field(default_factory=KnownRoutes)
    _medians_s: dict[str, tuple[float, ...]] = field(default_factory=dict)
    _typical: dict[tuple[str, int], Median] = field(default_factory=dict)
    _everyone: frozenset[str] = frozenset()
    _rest_until_s: float = -math.inf
    _shapes_of: ModelInfo | None = None
    _has_dynamic_shapes: bool = False
    _unmeasured: frozenset[str] = frozenset()
    _judged: ModelInfo | None = None

    def __post_init__(self) -> None:
        """Make the tables that scheduling reads."""
        for variant in self.info.variants:
            if variant.name in self.backends or variant.name in self.evicted or variant.name in self.remote:
                self.corrections[variant.name] = Correction()
                self.health[variant.name] = VariantHealth()
                self.claims[variant.name] = Claim()
                self._medians_s[variant.name] = self._median_table(self._as_learnt(variant))
        self._everyone, self._unmeasured = frozenset((*self.backends, *self.remote)), self.evicted
        self.go_by(self.rules)

    def tables_by(self, policy: ModelPolicy) -> dict[str, tuple[float, ...]]:
        """Return the uncorrected predictions under a policy; many rows take milliseconds, so prepare them elsewhere."""
        rows = self.info.max_batch_size
        known = map(self._as_learnt, self.info.variants)
        return {item.name: safe_table(item, policy, rows) for item in known if item.name in self.corrections}

    def go_by(self, rules: Rules, tables: dict[str, tuple[float, ...]] | None = None) -> None:
        """Go by these rules from now on; what waits, and what was learned of this machine, stays.

        ``tables`` are those that ``tables_by`` gave for the same policy, if they were prepared.
        Once the model serves, only on the event loop's thread and with the dispatcher's lock held: then no request is
        being routed, and no run chosen. Requests inside keep the candidates and the budget that they came with.
        """
        with self._learning:
            self.tables = self.tables_by(rules.policy) if tables is None else tables
            if rules.policy.cascades:  # plans once known stay known: requests that wait may name them
                ratio = rules.policy.cascade_margin_ratio
                self.plans = {plan.name: plan.scaled(ratio) for plan in map(_plan, self.info.cascades)}
            self._costs_until_s = -math.inf
            self.rules = rules
        self.standing.watch_arrivals(self.tables, rules.policy)
        self._judge()

    def believe(self, verdicts: Mapping[str, Verdict]) -> None:
        """Route by these verdicts from now on; called as ``go_by``, which keeps them."""
        self.verdicts = dict(verdicts)
        self._judge()

    def _judge(self) -> None:
        judged = judge(self.info, self.verdicts, self.policy, self.corrections)
        with self._learning:
            self.accuracy = {item.name: item.accuracy for item in judged.variants if item.name in self.corrections}
            self._costs_until_s = -math.inf
        self._judged, self._routes = judged, KnownRoutes()

    @property
    def judged(self) -> ModelInfo:
        """The model as routing sees it: with the accuracies that are believed, and nothing quarantined to choose."""
        return self._judged or self.info

    @property
    def policy(self) -> ModelPolicy:
        """The model's thresholds."""
        return self.rules.policy

    @property
    def has_dynamic_shapes(self) -> bool:
        """Tell whether a dimension other than the batch may differ from request to request."""
        if self._shapes_of is not self.info:  # asked many times for each request
            self._has_dynamic_shapes = any(dim < 0 for spec in self.info.inputs for dim in spec.shape[1:])
            self._shapes_of = self.info
        return self._has_dynamic_shapes

    @property
    def max_rows(self) -> int:
        """The most rows that one run may take."""
        return min(self.policy.max_batch_size, self.info.max_batch_size)

    def ready(self, now_s: float) -> frozenset[str]:
        """Return the variants that are in memory and not resting."""
        if now_s >= self._rest_until_s:
            return self._everyone
        return frozenset(name for name in self._everyone if not self.health[name].is_out(now_s))

    def costs(self, now_s: float) -> Costs:
        """Return the predicted compute times now; they relax in steps, because every request asks."""
        if now_s >= self._costs_until_s:
            with self._learning:
                ratios = {name: correction.at(now_s) for name, correction in self.corrections.items()}
                self._costs = Costs(self.tables, ratios, self.accuracy, self.plans)
                self._costs_until_s = now_s + _RELAX_EVERY_S
        return self._costs

    def calm_costs(self, now_s: float) -> Costs:
        """Return the predictions with variants that were not measured lately as fast as this machine is when calm.

        A variant that was judged slow in a bad moment is not run, and so never judged again; a few decisions go by
        these predictions.
        """
        with self._learning:
            ratios = {
                name: correction.base if now_s - correction.updated_s > _UNMEASURED_S else correction.at(now_s)
                for name, correction in self.corrections.items()
            }
        return Costs(self.tables, ratios, self.accuracy, self.plans)

    def typical_s(self, variant: str, rows: int) -> float:
        """Return the median compute time of a run as this machine is now: what it will most likely take."""
        seen = self._typical.get((variant, rows))
        return self._medians_s[variant][rows] * self.corrections[variant].ratio if seen is None else seen.value_s

    def wanted(self, waiting: Waiting, costs: Costs) -> frozenset[str]:
        """Return the candidates no more accurate than what the objective takes where time is plenty."""
        calm_s = waiting.due_s - _PLENTY_S
        calm = Situation(
            costs=costs,
            now_s=calm_s,
            lanes_free_s=(calm_s,),
            max_rows=waiting.rows,
            price_per_s=self.policy.price_per_cpu_s,
            accuracy_loss=self.policy.max_accuracy_loss if self.policy.objective == "cost" else 0.0,
        )
        run = choose_run((waiting,), calm)
        plan = costs.plans.get(run.plan) if run else None
        most = plan.accuracy if plan else self.accuracy[run.variant] if run else 1.0
        return frozenset(name for name, accuracy in self.accuracy.items() if accuracy <= most)

    def without(self, candidates: tuple[str, ...], variants: Collection[str]) -> tuple[str, ...]:
        """Return the candidates that need none of these variants."""
        return tuple(name for name in candidates if not self.needs(name) & set(variants))

    def needs(self, candidate: str) -> frozenset[str]:
        """Return the variants that a candidate runs: itself, or both stages of a cascade."""
        plan = self.plans.get(candidate)
        return frozenset((plan.variant, plan.escalate_to) if plan else (candidate,))

    def calm_s(self, variant: str, rows: int) -> float:
        """Return the compute time as predicted at warm-up.

        What a run occupies a thread for: the corrected prediction also holds the waits of a busy machine.
        """
        return self.tables[variant][rows] * self.corrections[variant].base

    def may_inline(self, variant: str, rows: int, inline_s: float, now_s: float) -> bool:
        """Tell whether a run may occupy the event loop's thread: known to be short, whatever the input holds."""
        backend = self.backends.get(variant)
        is_known = backend is not None and backend.is_steady and not self.has_dynamic_shapes
        return is_known and now_s >= self._no_inline_until_s and self.calm_s(variant, rows) <= inline_s

    def bar_inline(self, now_s: float) -> None:
        """Let no run on the event loop's thread for a while: one took far longer there than was known."""
        self._no_inline_until_s = now_s + _NO_INLINE_S

    def route(self, knobs: Knobs, now_s: float) -> Route:
        """Return the candidates for these knobs, from memory where the same knobs came before.

        Raises:
            InvalidRequest, VariantNotFound, ModelNotReady: As ``policy.routing.choose_route``.
        """
        return self._routes.find(self, knobs, now_s)

    def missed(self, knobs: Knobs) -> str:
        """Return the evicted variant that an idle machine would have answered with, '' where it is in memory."""
        return self._routes.missed(self, knobs, self._costs)

    def evict(self, variant: str) -> None:
        """Take a variant out of routing; it still runs, until ``drop``. The dispatcher's lock is held."""
        self.evicted |= {variant}
        self._everyone -= {variant}

    def drop(self, variant: str) -> None:
        """Let go of an evicted variant's backend."""
        self.backends = {name: backend for name, backend in self.backends.items() if name != variant}

    def restore(self, variant: str, backend: Backend, ratio: float, now_s: float) -> None:
        """Take an evicted variant back, loaded again and warm: ``ratio`` is its time here over its profile's.

        It was measured beside live traffic; what was known of the variant from a calmer moment is believed instead.
        """
        self.backends = {**self.backends, variant: backend}
        self.problems = {name: why for name, why in self.problems.items() if name != variant}
        with self._learning:
            known = math.inf if variant in self._unmeasured else self.corrections[variant].base
            self.corrections[variant].rebase(min(ratio, known), now_s)
            self._unmeasured -= {variant}
            self._costs_until_s = -math.inf
        self.health[variant] = VariantHealth()
        self._everyone |= {variant}
        self.evicted -= {variant}

    def give_up(self, variant: str, why: str, now_s: float) -> None:
        """Let an evicted variant that cannot be loaded rest, before it is tried again."""
        self.problems = {**self.problems, variant: why}
        self.health[variant].out_until_s = now_s + _REST_S

    def learn(self, variant: str, rows: int, compute_s: float, now_s: float) -> None:
        """Correct a variant's prediction by one finished run, and forget its failures."""
        self._correct(variant, rows, compute_s, now_s)
        self.health[variant].failures = 0

    def learn_at_least(self, variant: str, rows: int, compute_s: float, now_s: float) -> None:
        """Correct a variant's prediction by a run that was broken off after so long, where it should have been over.

        Else one that became slower than it is taken for would be begun and broken off at every deadline, for ever.
        """
        if compute_s > self.typical_s(variant, rows):
            self._correct(variant, rows, compute_s, now_s)

    def _correct(self, variant: str, rows: int, compute_s: float, now_s: float) -> None:
        median_s = self._medians_s[variant][rows]
        correction = self.corrections[variant]
        with self._learning:
            if variant not in self.remote:  # which learn their own profile
                if (variant, rows) not in self._typical:
                    self._typical[variant, rows] = Median(self.typical_s(variant, rows))
                self._typical[variant, rows].observe(compute_s)
            correction.observe(compute_s, median_s, now_s)
            if variant in self.remote:
                self._relearn(variant, rows, compute_s)
            believed = self._costs.ratios.get(variant, 0.0)
            # Ladders are made anew for new costs: what changes no decision is left to the next relaxation.
            if abs(correction.ratio - believed) > _NOTICED * believed:
                ratios = {**self._costs.ratios, variant: correction.ratio}
                self._costs = Costs(self.tables, ratios, self.accuracy, self.plans)

    def withdraw(self, variant: str) -> None:
        """Take a remote variant out of routing, since no server of it is up. The dispatcher's lock is held."""
        self._everyone -= {variant}
        self.health[variant].out_until_s = math.inf
        self.problems = {**self.problems, variant: "none of its servers is up"}

    def offer(self, variant: str) -> None:
        """Take a remote variant back, and what was learnt of it meanwhile. The dispatcher's lock is held."""
        self.health[variant] = VariantHealth()
        self.problems = {name: why for name, why in self.problems.items() if name != variant}
        with self._learning:
            self._renew(variant)
        self._everyone |= {variant}

    def _relearn(self, variant: str, rows: int, compute_s: float) -> None:
        typical_s, known_s = self.remote[variant].learn(rows, compute_s), self._medians_s[variant][rows]
        if abs(typical_s - known_s) > _NOTICED * known_s:
            self._renew(variant)

    def _renew(self, variant: str) -> None:
        """Make a remote variant's predictions anew from what was learnt."""
        found = next(item for item in self.info.variants if item.name == variant)
        renewed = self._as_learnt(found)
        self._medians_s[variant] = self._median_table(renewed)
        self.tables = {**self.tables, variant: safe_table(renewed, self.policy, self.info.max_batch_size)}
        self._costs_until_s = -math.inf

    def _as_learnt(self, variant: Variant) -> Variant:
        remote = self.remote.get(variant.name)
        return variant if remote is None else replace(variant, profile=remote.learnt())

    def _median_table(self, variant: Variant) -> tuple[float, ...]:
        rows = range(1, self.info.max_batch_size + 1)
        return (0.0, *(variant.profile.at(count).p50_s for count in rows))

    def blame(self, variant: str, now_s: float) -> bool:
        """Count a failure that was the variant's fault; return whether it is taken out by this one."""
        health = self.health[variant]
        health.failures += 1
        if health.failures < _FAILURES_TO_TAKE_OUT or health.is_out(now_s):
            return False
        health.out_until_s = self._rest_until_s = now_s + _REST_S
        return True
