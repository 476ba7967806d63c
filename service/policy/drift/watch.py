"""All that is watched of one variant, behind five methods: answers, pairs, labels, a review now and then, and the hand.

The caller says what happened and in which order; a transition comes back where one is due. Nothing here waits, and one
lock of the caller's guards each watch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from service.domain.drift import DriftPolicy
from service.policy.drift.distributions import compare
from service.policy.drift.estimate import estimate_accuracy
from service.policy.drift.lifecycle import SEVERITY, Evidence, Standing, advance, let_go, set_by_hand
from service.policy.drift.rolling import Z_ONE_SIDED_90, RollingMean, wilson
from service.policy.drift.sequential import FallTest, RiseTest, bounds_at

if TYPE_CHECKING:
    from service.domain.drift import DriftState, VariantReference
    from service.policy.drift.distributions import Difference
    from service.policy.drift.estimate import AccuracyEstimate
    from service.policy.drift.lifecycle import Transition
    from service.policy.drift.pairs import Pair
    from service.policy.drift.rolling import Interval

FEWEST_FOR_SHIFT: Final = 100
_QUIET: Final = 2.0
"""What speaks for a rise of late, below which nothing is suspected: what changed is taken to have changed since."""
_REMEMBERED: Final = 100.0
"""Times the evidence that quarantines: as much is kept of it, so that an hour of errors is not atoned for in days."""


@dataclass(frozen=True, slots=True)
class WatchReport:
    """A variant as the API and the metrics show it; ``None`` where there is nothing to say."""

    state: DriftState
    is_held: bool
    loss: Interval
    allowed_loss: float | None
    distance: Interval
    margin: Interval
    accuracy: Interval
    claimed_accuracy: float
    estimate: AccuracyEstimate | None
    confidence: Difference | None
    evidence: Evidence


@dataclass(slots=True)
class _Tests:
    """The sequential tests of one kind of sample: pairs or labels."""

    drop: RiseTest
    severe: RiseTest
    recovery: FallTest

    def reset(self) -> None:
        self.drop.reset()
        self.severe.reset()
        self.recovery.reset()


@dataclass(slots=True)
class VariantWatch:
    """The watch over one variant; ``full`` is full's reference, ``None`` for full itself.

    ``allowed_blame`` is full's: how often, at most, the others may agree with one another and not with it (0..1).
    """

    reference: VariantReference
    full: VariantReference | None
    policy: DriftPolicy = field(default_factory=DriftPolicy)
    standing: Standing = field(default_factory=Standing)
    allowed_blame: float = 0.0
    _pairs: deque[Pair] = field(init=False)
    _log_odds: deque[float] = field(init=False)
    _loss: RollingMean = field(init=False)
    _distance: RollingMean = field(init=False)
    _margin: RollingMean = field(init=False)
    _accuracy: RollingMean = field(init=False)
    _by_pairs: _Tests = field(init=False)
    _by_labels: _Tests = field(init=False)
    _allowed_error: float = field(init=False)
    _samples: int = field(init=False, default=0)
    _suspect: int = field(init=False, default=0)
    _is_by_labels: bool = field(init=False, default=False)
    _shifted: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        size, reference = self.policy.window, self.reference
        self._pairs, self._log_odds = deque(maxlen=size), deque(maxlen=size)
        self._loss, self._distance, self._margin, self._accuracy = (RollingMean(size) for _ in range(4))
        self._by_pairs = self._tests(self.allowed_blame if reference.allowed is None else reference.allowed.rate)
        self._allowed_error = wilson((1.0 - reference.accuracy) * reference.rows, reference.rows, Z_ONE_SIDED_90).high
        self._by_labels = self._tests(self._allowed_error)

    def answered(self, log_odds: float) -> None:
        """Take the log-odds of an answer that was given."""
        self._log_odds.append(log_odds)

    def compared(self, pair: Pair) -> Transition | None:
        """Take a shadow sample of this variant beside full."""
        allowed = self.reference.allowed
        if allowed is None:
            return None
        self._pairs.append(pair)
        self._distance.add(pair.distance)
        self._margin.add(pair.margin)
        return self._lost(pair.loss, bounds_at(allowed, pair.full_log_odds))

    def blamed(self, blame: float, bounds: tuple[float, ...]) -> Transition | None:
        """Take, for full, how much of a sample's loss is its own, 0..1, whose mean is allowed to be each of ``bounds``.

        That is what witnesses say (``witnesses``); full has nobody bigger to be compared with.
        """
        return self._lost(blame, bounds)

    def forget_pairs(self) -> None:
        """Forget every pair: full, with whom they were made, is not believed any more."""
        self._keep_last(0)
        self._by_pairs.reset()
        self._suspect = 0

    def labelled(self, score: float) -> Transition | None:
        """Take the score of an answer whose label came: 1 right, 0 wrong, or between."""
        self._accuracy.add(score)
        error, loss = self._allowed_error, 1.0 - score
        self._by_labels.drop.observe(loss, error)
        self._by_labels.severe.observe(loss, error + self.policy.severe_drop)
        self._by_labels.recovery.observe(loss)
        return self._step()

    def review(self, shifted: tuple[str, ...] = ()) -> Transition | None:
        """Hold the window of answers against the reference; ``shifted`` names inputs found to differ."""
        difference, estimate = self._difference(), self.estimate()
        found = list(shifted)
        if difference is not None and min(difference.psi_p, difference.ks_p) < self.policy.distribution_level:
            found.append("confidence")
        if estimate is not None and estimate.high < self.reference.accuracy - self.policy.drop:
            found.append("estimated accuracy")
        self._shifted = tuple(found)
        return self._step(counts=False)

    def follow(self, policy: DriftPolicy) -> bool:
        """Go by ``policy`` with all that is known; false, and nothing done, where the tests would ask another thing."""
        asks_same = _question_of(policy) == _question_of(self.policy)
        if asks_same:
            self.policy = policy
        return asks_same

    def set_by_hand(self, state: DriftState, who: str) -> Transition:
        """Set ``state`` and keep it until ``let_go``."""
        self.standing, transition = set_by_hand(self.standing, state, who, self.evidence())
        self._is_by_labels = False
        self._begin_anew()
        return transition

    def let_go(self) -> None:
        """Let the evidence decide again, from here."""
        self.standing = let_go(self.standing)
        self._begin_anew()

    @property
    def is_blamed(self) -> bool:
        """Whether the variant is demoted or quarantined, and not because labels say that it errs."""
        return SEVERITY[self.standing.state] >= SEVERITY["demoted"] and not self._is_by_labels

    @property
    def recent(self) -> float:
        """How much speaks for a drop of late (``sequential``), whoever says it; about 1 where nothing does."""
        return max(self._by_pairs.drop.recent, self._by_labels.drop.recent)

    @property
    def claim(self) -> float | None:
        """The accuracy that routing may reckon with; ``None``: it may not be chosen."""
        if self.standing.state == "quarantined":
            return None
        if self.standing.state != "demoted":
            return self.reference.accuracy
        found, measured, loss = self.estimate(), self._accuracy.interval, self._loss.interval
        known = [self.reference.accuracy]
        if measured.count >= FEWEST_FOR_SHIFT:
            known.append(measured.value)
        if found is not None:
            known.append(found.value)
        if loss.count > 0 and (found is None or found.method == "confidence"):  # damaged weights may be as sure as ever
            known.append(max(0.0, self.reference.accuracy - loss.value))
        return min(known)

    def estimate(self) -> AccuracyEstimate | None:
        """Estimate the accuracy of late without labels; ``None`` where the task has no calibration or too few rows."""
        if self.reference.calibration is None:
            return None
        full = None if self.full is None else self.full.calibration
        return estimate_accuracy(np.asarray(self._log_odds), self.reference.calibration, tuple(self._pairs), full)

    def report(self) -> WatchReport:
        """Return everything for people and metrics."""
        return WatchReport(
            state=self.standing.state,
            is_held=self.standing.is_held,
            loss=self._loss.interval,
            allowed_loss=self._allowed_loss,
            distance=self._distance.interval,
            margin=self._margin.interval,
            accuracy=self._accuracy.interval,
            claimed_accuracy=self.reference.accuracy,
            estimate=self.estimate(),
            confidence=self._difference(),
            evidence=self.evidence(),
        )

    def evidence(self) -> Evidence:
        """Return what is known now; cheap, without the estimate."""
        pairs, labels = self._by_pairs, self._by_labels
        measured, loss = self._accuracy.interval, self._loss.interval
        is_agreed = self.full is None and self._is_by_labels  # that nobody differs from full does not make it right
        return Evidence(
            drop=pairs.drop.run_length,
            severe=pairs.severe.run_length,
            label_drop=labels.drop.run_length,
            label_severe=labels.severe.run_length,
            recovery=max(0.0 if is_agreed else pairs.recovery.run_length, labels.recovery.run_length),
            shifted=self._shifted,
            samples=self._samples,
            loss=loss.value if loss.count else None,
            allowed_loss=self._allowed_loss,
            accuracy=measured.value if measured.count else None,
            claimed_accuracy=self.reference.accuracy,
        )

    @property
    def _allowed_loss(self) -> float | None:
        if self.reference.allowed is not None:
            return self.reference.allowed.rate
        return self.allowed_blame if len(self._loss) else None

    def _lost(self, loss: float, bounds: tuple[float, ...]) -> Transition | None:
        self._loss.add(loss)
        self._by_pairs.drop.observe(loss, *bounds)
        self._by_pairs.severe.observe(loss, *(bound + self.policy.severe_drop for bound in bounds))
        self._by_pairs.recovery.observe(loss)
        self._suspect = self._suspect + 1 if self._by_pairs.drop.recent > _QUIET else 0
        return self._step()

    def _tests(self, rate: float) -> _Tests:
        drop, most = self.policy.drop, _REMEMBERED * self.policy.demote_run_length
        return _Tests(RiseTest(drop), RiseTest(drop, most), FallTest(limit=rate + drop, aim=rate))

    def _difference(self) -> Difference | None:
        reference = self.reference.log_odds
        if reference is None or len(self._log_odds) < FEWEST_FOR_SHIFT:
            return None
        return compare(reference, np.asarray(self._log_odds))

    def _step(self, *, counts: bool = True) -> Transition | None:
        self._samples += counts
        transition = advance(self.standing, self.evidence(), self.policy, is_full=self.full is None)
        if transition is not None:
            self.standing = Standing(transition.after)
            self._is_by_labels = transition.evidence.label_drop > transition.evidence.drop
            if transition.after in {"demoted", "quarantined"}:
                self._keep_last(self._suspect)
            elif transition.after == "restored":
                self._keep_last(0)
            if transition.after != "warned":
                self._begin_anew()
        return transition

    def _keep_last(self, pairs: int) -> None:
        """Forget what was seen before a change, so that estimates are of the time since."""
        while len(self._pairs) > pairs:
            self._pairs.popleft()
        for mean in (self._loss, self._distance, self._margin):
            mean.keep_last(pairs)

    def _begin_anew(self) -> None:
        """Let the tests look only at what comes from here on."""
        self._by_pairs.reset()
        self._by_labels.reset()
        self._samples = 0


def _question_of(policy: DriftPolicy) -> tuple[float, ...]:
    """Return what the tests and windows are made of; the rest of a policy is what is done by them."""
    return policy.drop, policy.severe_drop, policy.demote_run_length, policy.window
