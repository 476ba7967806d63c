"""How much each variant is used and missed: what evictions go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.observer import SilentObserver
from service.policy.memory import decayed

if TYPE_CHECKING:
    from service.domain.observer import RunReport

_Key = tuple[str, str]


class Uses(SilentObserver):
    """Requests by model and variant: those that it answered, and those that would have preferred it.

    Both are decayed and stand as of the last ``settle``. Counting takes no lock: lanes count at the same time, and a
    count lost between two of them changes nothing.
    """

    def __init__(self) -> None:
        """Start with no counts."""
        self.answered: dict[_Key, float] = {}
        self.demand: dict[_Key, float] = {}
        self._new_answered: dict[_Key, int] = {}
        self._new_demand: dict[_Key, int] = {}
        self._settled_s = 0.0

    def run_finished(self, report: RunReport) -> None:
        """Count the requests of a run."""
        key = report.model, report.variant
        self._new_answered[key] = self._new_answered.get(key, 0) + report.requests

    def note_demand(self, model: str, variant: str) -> None:
        """Count a request that would have preferred this variant."""
        key = model, variant
        self._new_demand[key] = self._new_demand.get(key, 0) + 1

    def settle(self, now_s: float) -> None:
        """Bring the decayed counts up to a moment."""
        age_s, self._settled_s = now_s - self._settled_s, now_s
        answered, self._new_answered = self._new_answered, {}
        demand, self._new_demand = self._new_demand, {}
        self.answered = _sum(self.answered, answered, age_s)
        self.demand = _sum(self.demand, demand, age_s)


def _sum(old: dict[_Key, float], new: dict[_Key, int], age_s: float) -> dict[_Key, float]:
    return {key: decayed(old.get(key, 0.0), age_s) + new.get(key, 0) for key in [*old, *(set(new) - set(old))]}
