"""Scaling alone against scaling with smaller variants to route to, at equal attainment.

Scaling alone has one variant, the most accurate one, and is given the best target of busy lanes in hindsight: of many,
the one that pays for the fewest replicas while it attains no less. The tiers have the whole ladder and go by what
their clients miss and by the accuracy that they are given less of; busy lanes tell nothing there, because a gateway
that spends idle time on accuracy is busy at any rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from loadtests.scaling.autoscaler import read_rules
from loadtests.scaling.day import diurnal, flash_crowds, grid, live, replicas_for
from loadtests.scaling.response import Replica, measure
from loadtests.simulator.policies import always_full
from loadtests.simulator.policy import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from loadtests.scaling.day import Day, Delays
    from loadtests.scaling.response import Response
    from loadtests.simulator.ladder import Ladder
    from service.domain.variants import Variant

BUSY_TARGETS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TRACES: Final[Mapping[str, Callable[[float, int], NDArray[np.float64]]]] = {
    "diurnal": diurnal,
    "flash crowds": flash_crowds,
}
_FIRST_BUSY: Final = 0.5
"""Every day begins with the replicas that full alone needs for lanes this busy."""
FULL: Final = "full alone"
TIERS: Final = "tiers"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is contested: a ladder, what clients ask for, and the chart's values under ``autoscaling``."""

    ladder: Ladder
    budget_s: float
    autoscaling: Mapping[str, Any]
    delays: Delays
    least: int = 2
    most: int = 200
    lanes: int = 2
    requests: int = 6000
    seed: int = 0
    given_up: tuple[float, ...] = (0.002, 0.005)


@dataclass(frozen=True, slots=True)
class Entry:
    """One way to scale on one trace: its name, its targets by signal, and its day."""

    name: str
    targets: Mapping[str, float]
    day: Day


def responses(setting: Setting) -> dict[str, Response]:
    """Return how a replica responds, with the full variant alone and with all."""
    full, smallest = setting.ladder.variants[0], min(setting.ladder.variants, key=_seconds)
    alone = replace(setting.ladder, variants=(full,), plans=())
    rates = grid(setting.lanes / _seconds(full), setting.lanes / _seconds(smallest))
    timeout_s = 10.0 * setting.budget_s
    found = {}
    for name, ladder, policy in ((FULL, alone, always_full.POLICY), (TIERS, setting.ladder, OURS)):
        replica = Replica(ladder, policy, setting.budget_s, timeout_s, setting.lanes)
        found[name] = measure(replica, rates, setting.requests, setting.seed)
    return found


def contest(setting: Setting, found: Mapping[str, Response], trace: str) -> list[Entry]:
    """Return every way to scale on a trace whose peak needs all replicas at 70 % busy lanes with full alone."""
    peak_hz = 0.7 * setting.most * setting.lanes / _seconds(setting.ladder.variants[0])
    rates = TRACES[trace](peak_hz, setting.seed)
    rules = read_rules(setting.autoscaling, least=setting.least, most=setting.most)
    first = replicas_for(float(rates[0]), setting.lanes / _seconds(setting.ladder.variants[0]), _FIRST_BUSY)
    missed = {name: target for name, target in rules.targets.items() if name != "laneBusyRatio"}
    ways = [(FULL, {**missed, "laneBusyRatio": target}) for target in BUSY_TARGETS]
    ways += [(TIERS, missed)]
    ways += [(TIERS, {**missed, "accuracyGivenUp": target}) for target in setting.given_up]
    ways += [(TIERS, dict(rules.targets) | {"laneBusyRatio": rules.targets.get("laneBusyRatio", 0.8)})]
    return [
        Entry(name, targets, live(rates, found[name], replace(rules, targets=targets), setting.delays, first))
        for name, targets in ways
    ]


def rival(entries: list[Entry], tiers: Entry) -> Entry:
    """Return the cheapest way of full alone that attains no less; where none does, the one that attains most."""
    alone = [item for item in entries if item.name == FULL]
    able = [item for item in alone if item.day.attainment >= tiers.day.attainment]
    if able:
        return min(able, key=lambda item: item.day.replica_hours)
    return max(alone, key=lambda item: item.day.attainment)


def document(entries: list[Entry]) -> list[dict[str, Any]]:
    """Return the ways to scale as what JSON can hold.

    A tier's saving is in replica-hours against its rival; ``is_equal`` says whether that attains as much.
    """
    rows = []
    for item in entries:
        row: dict[str, Any] = {
            "name": item.name,
            "targets": dict(item.targets),
            "attainment": item.day.attainment,
            "effective_accuracy": item.day.accuracy,
            "worst_minute": _worst_minute(item.day),
            "replica_hours": item.day.replica_hours,
            "most_replicas": int(item.day.replicas.max()),
        }
        if item.name == TIERS:
            other = rival(entries, item).day
            row["saving"] = other.replica_hours / item.day.replica_hours
            row["is_equal"] = other.attainment >= item.day.attainment
            row["accuracy_lost"] = other.accuracy - item.day.accuracy
        rows.append(row)
    return rows


def _worst_minute(day: Day) -> float:
    whole = len(day.rate_hz) // 60 * 60
    rates = day.rate_hz[:whole].reshape(-1, 60)
    met = (day.attainment_by_s[:whole].reshape(-1, 60) * rates).sum(axis=1) / rates.sum(axis=1)
    return float(met.min())


def _seconds(variant: Variant) -> float:
    return variant.profile.at(1).p50_s
