"""Our detector and those of others, all as functions of the same stream of pairs.

``river`` (Montiel et al. 2021) has ADWIN, Page-Hinkley and KSWIN. The first two see the loss of each pair, as ours
does, KSWIN the score distance, since a test of two distribution functions has no use for zeros and ones. Their settings
are the defaults, and besides the most sensitive of a grid that keeps to one false alarm in a thousand samples on these
very streams (``tuned``, for ours too): a comparison at defaults alone would measure defaults. PSI compares
the variant's log-odds over a window with the reference's bins at the usual limit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

import numpy as np
from river import base, drift

from loadtests.drift.references import present
from service.domain.drift import DriftPolicy
from service.policy.drift.distributions import compare
from service.policy.drift.sequential import RiseTest, bounds_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.drift import AllowedLoss, Distribution, VariantReference
    from service.policy.drift.pairs import Pair

RUN_LENGTHS: Final = (DriftPolicy().demote_run_length, 1000.0, 300.0, 100.0, 30.0)
ADWIN_DELTAS: Final = (0.002, 0.01, 0.05, 0.2, 0.5)
PAGE_HINKLEY_LIMITS: Final = (50.0, 20.0, 10.0, 5.0, 3.0, 2.0, 1.0)
PSI_WINDOW: Final = 150
PSI_LIMIT: Final = 0.25


class Detector(Protocol):
    """Sees pairs one by one and says when it has had enough; it begins anew after an alarm."""

    def add(self, pair: Pair) -> bool:
        """Take a pair and tell whether that raises the alarm."""
        ...


Kind = Literal["tiergate", "ADWIN", "Page-Hinkley", "KSWIN", "PSI"]
GRIDS: Final[dict[Kind, tuple[float, ...]]] = {
    "tiergate": RUN_LENGTHS,
    "ADWIN": ADWIN_DELTAS,
    "Page-Hinkley": PAGE_HINKLEY_LIMITS,
    "KSWIN": (0.0,),
    "PSI": (PSI_LIMIT,),
}
"""The settings of each kind, its default first, then more and more sensitive; KSWIN's has no name."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A kind of detector with a setting of ``GRIDS``."""

    kind: Kind
    setting: float

    def make(self, reference: VariantReference) -> Detector:
        """Return a detector for the variant of this reference, which has seen nothing.

        Raises:
            ReferenceMissing: The manifest is of a build that wrote too little.
        """
        if self.kind == "tiergate":
            allowed = present(reference.allowed, "allowed loss of a variant")
            return Ours(allowed, DriftPolicy(demote_run_length=self.setting))
        if self.kind == "PSI":
            return PlainPsi(present(reference.log_odds, "confidence of a variant"), self.setting)
        return River(self._make_rivers, sees_distance=self.kind == "KSWIN")

    def _make_rivers(self) -> base.DriftDetector:
        if self.kind == "ADWIN":
            make: Any = drift.ADWIN  # compiled, and untyped
            return cast("base.DriftDetector", make(delta=self.setting, clock=1))
        if self.kind == "Page-Hinkley":
            return drift.PageHinkley(threshold=self.setting, mode="up")
        return drift.KSWIN(seed=0)


@dataclass(slots=True)
class Ours:
    """``RiseTest`` as the watch uses it."""

    allowed: AllowedLoss
    policy: DriftPolicy
    _test: RiseTest = field(init=False)

    def __post_init__(self) -> None:
        """Begin."""
        self._test = RiseTest(self.policy.drop)

    def add(self, pair: Pair) -> bool:
        """Take a pair."""
        self._test.observe(pair.loss, *bounds_at(self.allowed, pair.full_log_odds))
        if self._test.run_length < self.policy.demote_run_length:
            return False
        self._test.reset()
        return True


@dataclass(slots=True)
class River:
    """A detector of river's on the loss or on the score distance."""

    make: Callable[[], base.DriftDetector]
    sees_distance: bool = False
    _inner: base.DriftDetector = field(init=False)

    def __post_init__(self) -> None:
        """Begin."""
        self._inner = self.make()

    def add(self, pair: Pair) -> bool:
        """Take a pair."""
        self._inner.update(pair.distance if self.sees_distance else pair.loss)
        if not self._inner.drift_detected:
            return False
        self._inner = self.make()
        return True


@dataclass(slots=True)
class PlainPsi:
    """PSI of the last log-odds against the reference, once in every tenth of a window."""

    reference: Distribution
    limit: float
    _window: deque[float] = field(default_factory=lambda: deque(maxlen=PSI_WINDOW))
    _since: int = 0

    def add(self, pair: Pair) -> bool:
        """Take a pair."""
        self._window.append(pair.log_odds)
        self._since += 1
        if len(self._window) < PSI_WINDOW or self._since % (PSI_WINDOW // 10):
            return False
        if compare(self.reference, np.asarray(self._window)).psi < self.limit:
            return False
        self._window.clear()
        return True
