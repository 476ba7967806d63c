"""Routes of a model, kept by their knobs: most requests ask alike, and to find a route takes long beside a look-up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from service.domain.errors import ModelNotReady
from service.policy.routing import Route, choose_route

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from service.domain.inference import Knobs
    from service.domain.variants import ModelInfo
    from service.domain.verdicts import Verdict
    from service.policy.costs import Costs, Plan
    from service.policy.routing import Rules

_MOST_KEPT: Final = 1024


class Resting(Protocol):
    """How a variant is."""

    def is_out(self, now_s: float) -> bool:
        """Tell whether it rests."""


class Routed(Protocol):
    """What routing depends on in a model."""

    info: ModelInfo
    rules: Rules
    problems: Mapping[str, str]
    plans: dict[str, Plan]
    verdicts: Mapping[str, Verdict]
    evicted: frozenset[str]

    @property
    def judged(self) -> ModelInfo:
        """The model with the accuracies that are believed."""

    @property
    def health(self) -> Mapping[str, Resting]:
        """The health of every variant that is loaded, evicted or elsewhere."""

    def ready(self, now_s: float) -> frozenset[str]:
        """Return the variants that can answer now."""

    def needs(self, candidate: str) -> frozenset[str]:
        """Return the variants that a candidate runs."""


@dataclass(slots=True)
class KnownRoutes:
    """The routes of one model under one policy, and the evicted variants that were missed; on one event loop.

    Whoever changes the policy, or what is believed of the variants, begins with a new one.
    """

    _routes: dict[Knobs, Route] = field(default_factory=dict)
    _ready: frozenset[str] = frozenset()
    _missed: dict[Knobs, str] = field(default_factory=dict)
    _missed_among: frozenset[str] = frozenset()

    def find(self, model: Routed, knobs: Knobs, now_s: float) -> Route:
        """Return the candidates for these knobs, from memory where the same knobs came before.

        Raises:
            InvalidRequest, VariantNotFound, ModelNotReady: As ``policy.routing.choose_route``.
        """
        ready = model.ready(now_s)
        if (ready is not self._ready and ready != self._ready) or len(self._routes) >= _MOST_KEPT:
            self._routes, self._ready = {}, ready
        key = _key(knobs)
        route = self._routes.get(key)
        if route is None:
            try:
                route = self._routes[key] = _with_plans(model, choose_route(model.judged, key, model.rules, ready))
            except ModelNotReady:
                # Not kept: a variant whose loading fails rests, and then this is no way out any more.
                route = _with_plans(model, _without_what_is_ready(model, key, ready, now_s))
        return route

    def missed(self, model: Routed, knobs: Knobs, costs: Costs) -> str:
        """Return the evicted variant that an idle machine would have answered with, '' where it is in memory."""
        if self._missed_among is not model.evicted or len(self._missed) >= _MOST_KEPT:
            self._missed, self._missed_among = {}, model.evicted
        key = _key(knobs)
        missed = self._missed.get(key)
        if missed is None:
            route = choose_route(model.judged, key, model.rules, model.health)
            timely = (item.name for item in route.candidates if costs.of(item.name, 1) <= route.budget_s)
            preferred = next(timely, "")
            missed = self._missed[key] = preferred if preferred in model.evicted else ""
        return missed


def _key(knobs: Knobs) -> Knobs:
    # A timeout differs from request to request (gRPC sends what is left of the deadline) and decides nothing here.
    return knobs if knobs.timeout_s is None else replace(knobs, timeout_s=None)


def _without_what_is_ready(model: Routed, knobs: Knobs, ready: Collection[str], now_s: float) -> Route:
    """Return the route where nothing that is ready will do: over evicted variants, too.

    Raises:
        ModelNotReady: They would not help.
    """
    # The two sets are not compared: a variant may go from one to the other now.
    able = {name for name, health in model.health.items() if not health.is_out(now_s)}
    if able == ready and (why := model.problems.get(knobs.variant or "")):
        raise ModelNotReady(f"variant '{knobs.variant}' of model '{model.info.name}' is not ready: {why}") from None
    return choose_route(model.judged, knobs, model.rules, able)


def _with_plans(model: Routed, route: Route) -> Route:
    """Return the route with its names: the candidates, and between them the cascades that they can serve."""
    accuracy = {item.name: item.accuracy for item in route.candidates}
    names = tuple(accuracy)
    if model.plans and model.rules.policy.cascades and not route.is_pinned:
        # What a cascade's accuracy was measured with is no longer so where drift speaks of one of its stages.
        sure = accuracy.keys() - {name for name, verdict in model.verdicts.items() if verdict.accuracy is not None}
        accuracy |= {name: plan.accuracy for name, plan in model.plans.items() if model.needs(name) <= sure}
        names = tuple(sorted(accuracy, key=lambda name: -accuracy[name]))  # stable: a variant before its equals
    return replace(route, names=names)
