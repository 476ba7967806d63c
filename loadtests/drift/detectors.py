"""Our detector and those of others, all as functions of the same stream of pairs.

``river`` (Montiel et al. 2021) has ADWIN, Page-Hinkley and KSWIN. The first two see the loss of each pair, as ours
does, KSWIN the score distance, since a test of two distribution functions has no use for zeros and ones. Their settings
are the defaults, and besides the most sensitive of a grid that keeps to one false alarm in a thousand samples on these
very streams (``tuned``, for ours too): a comparison at defaults alone would measure defaults. PSI compares
the variant's log-odds over a window with the reference's bins at the usual limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from river import base, drift

from service.domain.drift import DriftPolicy
from service.policy.drift.distributions import compare
from service.policy.drift.sequential import RiseTest, bounds_at

if TYPE_CHECKING:
    from service.domain.drift import AllowedLoss, Distribution
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


Maker = Callable[[], Detector]


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
    _window: deque[float] = field(default_factory=lambda: deque(maxlen=PSI_WINDOW))
    _since: int = 0

    def add(self, pair: Pair) -> bool:
        """Take a pair."""
        self._window.append(pair.log_odds)
        self._since += 1
        if len(self._window) < PSI_WINDOW or self._since % (PSI_WINDOW // 10):
            return False
        if compare(self.reference, np.asarray(self._window)).psi < PSI_LIMIT:
            return False
        self._window.clear()
        return True


def adwin(delta: float) -> Maker:
    """Return a maker of river's ADWIN on the loss."""
    make: Any = drift.ADWIN  # compiled, and untyped
    return lambda: River(lambda: make(delta=delta, clock=1))


def page_hinkley(limit: float) -> Maker:
    """Return a maker of river's Page-Hinkley on a rise of the loss."""
    return lambda: River(lambda: drift.PageHinkley(threshold=limit, mode="up"))


def kswin() -> Detector:
    """Return river's KSWIN on the score distance."""
    return River(lambda: drift.KSWIN(seed=0), sees_distance=True)
