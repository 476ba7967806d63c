"""The policy in force, what became of others, and whether traffic is what it was tuned for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.departure import REGION_FIGURES
from service.domain.observer import SilentObserver

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.departure import Departure
    from service.domain.variants import ModelInfo
    from service.telemetry.families import Families


class PolicyMetrics(SilentObserver):
    """Hears of policies; they are told whether requests are counted or not."""

    def __init__(self, families: Families) -> None:
        """Define the families."""
        self._info = families.gauge("policy_info", "The policy in force", ("digest",))
        self._reloads = families.counter(
            "policy_reloads", "Policies that were to replace the one in force", ("outcome",)
        )
        for outcome in ("applied", "refused"):
            self._reloads.labels(outcome)
        self._refused = families.gauge(
            "policy_file_refused", "1 while the policy file cannot be taken, and says other than is in force", ()
        )
        self._region = families.gauge(
            "policy_region_left", "Whether live traffic has left what the policy was tuned for", ("model", "figure")
        )

    def watch(self, is_file_refused: Callable[[], bool]) -> None:
        """Ask at every scrape whether the policy file is refused."""
        self._refused.set_function(lambda: float(is_file_refused()))

    def policy_loaded(self, digest: str) -> None:
        """Tell which policy is in force."""
        self._info.clear()
        self._info.labels(digest).set(1)

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:  # noqa: ARG002
        """Count a policy that was put in force."""
        self.policy_loaded(digest)
        self._reloads.labels("applied").inc()

    def policy_refused(self, why: str) -> None:  # noqa: ARG002
        """Count a policy that was not taken."""
        self._reloads.labels("refused").inc()

    def model_loaded(self, model: ModelInfo) -> None:
        """Create a model's label sets at zero; a reload leaves them as they are, as it does the region's watch."""
        for figure in REGION_FIGURES:
            self._region.labels(model.name, figure)

    def model_unloaded(self, model: str) -> None:
        """Say nothing more of a model that is not served."""
        self._region.remove_by_labels({"model": model})

    def region_changed(self, model: str, departures: tuple[Departure, ...]) -> None:
        """Tell which figures have left the tuned region."""
        left = {item.figure for item in departures}
        for figure in REGION_FIGURES:
            self._region.labels(model, figure).set(figure in left)
