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

from service.policy.deadline_queue import DeadlineQueue
from service.policy.latency import Correction, safe_table
from service.policy.routing import Route, choose_route
from service.policy.scheduling import Costs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.domain.inference import Knobs
    from service.domain.policy_file import ModelPolicy
    from service.domain.variants import ModelInfo
    from service.engine.backends.backend import Backend
    from service.engine.repository import StoredFile
    from service.engine.ticket import Ticket
    from service.policy.routing import Rules

_FAILURES_TO_TAKE_OUT: Final = 3
_REST_S: Final = 30.0
_ROUTES_KEPT: Final = 1024
_RELAX_EVERY_S: Final = 0.02
_NO_INLINE_S: Final = 60.0


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
    """One model, loaded; ``problems`` holds the variants that are not, with the reason."""

    info: ModelInfo
    rules: Rules
    backends: Mapping[str, Backend]
    problems: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    corrections: dict[str, Correction] = field(default_factory=dict)
    health: dict[str, VariantHealth] = field(default_factory=dict)
    tables: dict[str, tuple[float, ...]] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    queue: DeadlineQueue[Ticket] = field(default_factory=DeadlineQueue)
    _costs: Costs = field(default_factory=lambda: Costs({}, {}, {}))
    _costs_until_s: float = -math.inf
    _no_inline_until_s: float = -math.inf
    _learning: threading.Lock = field(default_factory=threading.Lock)
    _routes: dict[Knobs, Route] = field(default_factory=dict)
    _routes_ready: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Make the tables that scheduling reads."""
        for variant in self.info.variants:
            if variant.name in self.backends:
                self.corrections[variant.name] = Correction()
                self.health[variant.name] = VariantHealth()
                self.tables[variant.name] = safe_table(variant, self.policy, self.info.max_batch_size)
                self.accuracy[variant.name] = variant.accuracy

    @property
    def policy(self) -> ModelPolicy:
        """The model's thresholds."""
        return self.rules.policy

    @property
    def has_dynamic_shapes(self) -> bool:
        """Tell whether a dimension other than the batch may differ from request to request."""
        return any(dim < 0 for spec in self.info.inputs for dim in spec.shape[1:])

    @property
    def max_rows(self) -> int:
        """The most rows that one run may take."""
        return min(self.policy.max_batch_size, self.info.max_batch_size)

    def ready(self, now_s: float) -> frozenset[str]:
        """Return the variants that are loaded and not resting."""
        return frozenset(name for name, health in self.health.items() if not health.is_out(now_s))

    def costs(self, now_s: float) -> Costs:
        """Return the predicted compute times now; they relax in steps, because every request asks."""
        if now_s >= self._costs_until_s:
            with self._learning:
                ratios = {name: correction.at(now_s) for name, correction in self.corrections.items()}
                self._costs = Costs(self.tables, ratios, self.accuracy)
                self._costs_until_s = now_s + _RELAX_EVERY_S
        return self._costs

    def calm_s(self, variant: str, rows: int) -> float:
        """Return the compute time as predicted at warm-up.

        What a run occupies a thread for: the corrected prediction also holds the waits of a busy machine.
        """
        return self.tables[variant][rows] * self.corrections[variant].base

    def may_inline(self, variant: str, rows: int, inline_s: float, now_s: float) -> bool:
        """Tell whether a run may occupy the event loop's thread: known to be short, whatever the input holds."""
        is_known = not self.has_dynamic_shapes and now_s >= self._no_inline_until_s
        return is_known and self.calm_s(variant, rows) <= inline_s

    def bar_inline(self, now_s: float) -> None:
        """Let no run on the event loop's thread for a while: one took far longer there than was known."""
        self._no_inline_until_s = now_s + _NO_INLINE_S

    def route(self, knobs: Knobs, now_s: float) -> Route:
        """Return the candidates for these knobs, from memory where the same knobs came before.

        Raises:
            InvalidRequest, VariantNotFound, ModelNotReady: As ``policy.routing.choose_route``.
        """
        ready = self.ready(now_s)
        if ready != self._routes_ready or len(self._routes) >= _ROUTES_KEPT:
            self._routes, self._routes_ready = {}, ready
        # A timeout differs from request to request (gRPC sends what is left of the deadline) and decides nothing here.
        key = knobs if knobs.timeout_s is None else replace(knobs, timeout_s=None)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = choose_route(self.info, key, self.rules, ready)
        return route

    def learn(self, variant: str, rows: int, compute_s: float, now_s: float) -> None:
        """Correct a variant's prediction by one finished run, and forget its failures."""
        profile = next(item.profile for item in self.info.variants if item.name == variant)
        correction = self.corrections[variant]
        with self._learning:
            correction.observe(compute_s, profile.at(rows).p50_s, now_s)
            self._costs = Costs(self.tables, {**self._costs.ratios, variant: correction.ratio}, self.accuracy)
        self.health[variant].failures = 0

    def blame(self, variant: str, now_s: float) -> bool:
        """Count a failure that was the variant's fault; return whether it is taken out by this one."""
        health = self.health[variant]
        health.failures += 1
        if health.failures < _FAILURES_TO_TAKE_OUT or health.is_out(now_s):
            return False
        health.out_until_s = now_s + _REST_S
        return True
