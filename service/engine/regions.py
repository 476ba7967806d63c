"""Holds live traffic against the regions that the policy in force was tuned for, and tells when it leaves one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.observer import SilentObserver
from service.policy.region import RegionWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.inference import Answer, InferenceRequest
    from service.domain.observer import Observer
    from service.domain.policy_file import PolicyFile, TunedRegion
    from service.domain.variants import ModelInfo


class TunedRegions(SilentObserver):
    """One watch for each model that has a region. ``observer`` hears what changes.

    Used on the event loop that serves.
    """

    def __init__(self, clock: Callable[[], float], policy: Callable[[], PolicyFile], observer: Observer) -> None:
        """Keep what is given. ``policy`` returns the one in force, and is asked when that has changed."""
        self._clock = clock
        self._policy = policy
        self._observer = observer
        self._regions: dict[str, TunedRegion] = {}
        self._watches: dict[str, RegionWatch] = {}

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:  # noqa: ARG002
        """Go by the regions of the policy in force; a region that has not changed goes on."""
        self.follow()

    def follow(self) -> None:
        """Go by the regions of the policy in force."""
        provenance = self._policy().provenance
        regions = {} if provenance is None else provenance.regions
        for model in [name for name, region in self._regions.items() if regions.get(name) != region]:
            if self._watches.pop(model).departures:
                self._observer.region_changed(model, ())
        now_s = self._clock()
        for model, region in regions.items():
            if model not in self._watches:
                self._watches[model] = RegionWatch(region, now_s)
        self._regions = dict(regions)

    def model_loaded(self, model: ModelInfo) -> None:
        """Tell again what was told: a model that comes back goes on being watched where it was."""
        watch = self._watches.get(model.name)
        if watch is not None and watch.departures:
            self._observer.region_changed(model.name, tuple(watch.departures.values()))

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Count an answer, and whether it took longer than was claimed."""
        overran = answer.total_s > answer.claimed_s if answer.claimed_s > 0.0 else None
        self._saw(request.model, answer.budget_s, overran=overran)

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:  # noqa: ARG002
        """Count a request that came all the same."""
        self._saw(request.model, request.knobs.budget_s, overran=None)

    def _saw(self, model: str, budget_s: float | None, *, overran: bool | None) -> None:
        watch = self._watches.get(model)
        if watch is not None and watch.saw(self._clock(), budget_s, overran=overran):
            self._observer.region_changed(model, tuple(watch.departures.values()))
