"""Predicted compute time: the measured profile, corrected by what this machine shows now.

A variant's manifest holds quantiles q(b) of its compute time for batch size b, measured by the build, perhaps on
another machine. Each run here gives the ratio r = actual / q50(b). The correction c is the exponentially weighted
mean of r over runs, and the prediction for quantile q is

    predicted(b) = c * q(b) * (1 + margin)

One factor for all batch sizes is enough as long as the two machines differ by speed rather than by shape; where the
shapes differ the error shows in ``predicted_over_actual`` and a re-profile is due.

A variant that was once slow (a noisy neighbour, a page fault) would be avoided, never run again, and so never found
fast again. Therefore the correction relaxes towards the calm value, with a half-life that counts time since the last
run: c(t) = base + (c - base) * 2^(-(t - t_last) / half_life). The calm value is the one measured at warm-up, or the
lowest correction seen since: a warm-up in a noisy moment is not believed for ever.

The weight of one run is 0.1: about twenty runs forget a step change. One run counts at most 4x, so that a
single stall does not close a variant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.domain.policy_file import ModelPolicy
    from service.domain.variants import LatencyCell, Variant

_WEIGHT: Final = 0.1
_MOST_ONE_RUN_COUNTS: Final = 4.0
_HALF_LIFE_S: Final = 10.0
_LAG_UP, _LAG_DOWN = 0.1, 0.01
_OUTSIDE_RATIO: Final = 0.2
_MOST_LAG_RATIO: Final = 0.4
_MOST_ASIDE_RATIO: Final = _MOST_LAG_RATIO + _OUTSIDE_RATIO
_MOST_HANDOVER_S: Final = 1e-3
_MEDIAN_STEP: Final = 0.04
_FIRST_MEDIAN_STEP: Final = 0.5
_MOST_AFTER_ROWS: Final = 16
_CLAIM_STEP, _FIRST_CLAIM_STEP = 5e-4, 0.01
_CLAIM_STEPS_FALL: Final = 0.5


@dataclass(slots=True)
class Correction:
    """How this machine, now, differs from a variant's profile; not thread-safe, the caller holds a lock."""

    base: float = 1.0
    ratio: float = 1.0
    updated_s: float = field(default=0.0)

    def at(self, now_s: float) -> float:
        """Return the correction at a moment, relaxed towards its base since the last run."""
        if self.ratio == self.base:
            return self.ratio
        age_s = max(0.0, now_s - self.updated_s)
        return self.base + float((self.ratio - self.base) * 2.0 ** (-age_s / _HALF_LIFE_S))

    def observe(self, actual_s: float, profiled_p50_s: float, now_s: float) -> None:
        """Learn from one run of ``actual_s`` where the profile's median is ``profiled_p50_s``."""
        seen = min(actual_s / max(profiled_p50_s, 1e-9), self.at(now_s) * _MOST_ONE_RUN_COUNTS)
        self.ratio = (1.0 - _WEIGHT) * self.at(now_s) + _WEIGHT * seen
        self.base = min(self.base, self.ratio)
        self.updated_s = now_s

    def rebase(self, ratio: float, now_s: float) -> None:
        """Start from a ratio measured on a calm machine, at warm-up."""
        self.base = self.ratio = ratio
        self.updated_s = now_s


@dataclass(slots=True)
class Median:
    """A running median of times, which follows a machine that changes; not thread-safe.

    Every time above raises it by a small share, every time below lowers it as much, so that it rests where half of
    them are above, whatever the rest is like (Robbins and Monro 1951). The first steps are larger.
    """

    value_s: float
    _count: int = 0

    def observe(self, seconds: float) -> None:
        """Learn from one time."""
        self._count += 1
        step = 1.0 + max(_MEDIAN_STEP, _FIRST_MEDIAN_STEP / self._count)
        self.value_s = self.value_s * step if seconds > self.value_s else self.value_s / step


@dataclass(slots=True)
class Claim:
    """How far the 99th percentile of a variant's time here lies above what is typical; not thread-safe.

    ``factor`` times the typical time is claimed to be exceeded by one answer of a hundred. It is found by stochastic
    approximation of a quantile (Robbins and Monro 1951; as adaptive conformal inference, Gibbs and Candes 2021): an
    answer above the claim raises it by 99 small steps, one below lowers it by one, so that it rests where one of a
    hundred is above, whatever the distribution, and follows when that changes. The steps fall from 1 % to 0.05 % over
    the first thousand answers: with the small ones alone a claim that begins too low is exceeded 14 times until it has
    doubled, which of 2,000 answers is most of the twenty that may exceed it.
    """

    factor: float = 1.5
    _count: int = 0

    def observe(self, actual_s: float, typical_s: float) -> None:
        """Learn from one answer."""
        self._count += 1
        step = max(_CLAIM_STEP, min(_FIRST_CLAIM_STEP, _CLAIM_STEPS_FALL / self._count))
        is_above = actual_s > self.factor * typical_s
        self.factor = max(1.0, self.factor * (1.0 + 99.0 * step if is_above else 1.0 - step))


@dataclass(slots=True)
class Handover:
    """The time around a run on an idle machine: before it, to a lane, and after it, back into the request's hands.

    Both pass in thread hand-over and in the event loop's own queue, so they belong to the process and not to a
    variant; a budget is kept only if they fit in it too. Each is an exponentially weighted mean in which one request
    counts at most a millisecond, so that a stall of the whole process does not close every tight budget after it.

    On a busy machine answers wait for the event loop. Under overload a queue by deadlines serves each request at the
    last moment, so that with a mean wait half of the answers would be late. So ``lag_s`` follows the waits as they are,
    upwards ten times as fast as downwards (their expectile of 91 %, Newey and Powell 1987); that is set aside too, up
    to a share of the budget, which again leaves a tight budget open after a stall.
    """

    before_s: float = 100e-6
    after_s: float = 100e-6
    lag_s: float = 0.0
    _typical: dict[int, Median] = field(default_factory=dict)

    def observe_before(self, seconds: float) -> None:
        """Learn from a request that found the machine idle and yet went through a lane."""
        self.before_s = _blend(self.before_s, seconds)

    def typical_after_s(self, rows: int) -> float:
        """Return the median of the time after a run of about so many rows: their answers are written in turn."""
        found = self._typical.get(min(rows, _MOST_AFTER_ROWS).bit_length())
        return self.after_s if found is None else found.value_s

    def observe_after(self, seconds: float, rows: int = 1) -> None:
        """Learn from one answered request, of a run of so many rows."""
        size = min(rows, _MOST_AFTER_ROWS).bit_length()
        if size not in self._typical:
            self._typical[size] = Median(max(self.after_s, 1e-6))
        self._typical[size].observe(seconds)
        self.after_s = _blend(self.after_s, seconds)
        self.lag_s += (_LAG_UP if seconds > self.lag_s else _LAG_DOWN) * (seconds - self.lag_s)

    def set_aside_s(self, budget_s: float, *, is_pressed: bool = False) -> float:
        """Return what a request should leave of its budget for the time after its run.

        Where requests are turned away there are always others to serve, and being earlier costs nothing; so
        ``is_pressed`` leaves a share more, for the time outside that is never measured here.

        It is never the whole budget: a machine that stood still for a moment would else take everybody for late, run
        nobody while it refuses, and so never learn that it goes on.
        """
        after_s = max(self.after_s, min(self.lag_s, _MOST_LAG_RATIO * budget_s))
        return min(after_s + _OUTSIDE_RATIO * budget_s if is_pressed else after_s, _MOST_ASIDE_RATIO * budget_s)


def _blend(mean_s: float, seconds: float) -> float:
    return mean_s + _WEIGHT * (min(max(seconds, 0.0), _MOST_HANDOVER_S) - mean_s)


def safe_quantile_s(cell: LatencyCell, policy: ModelPolicy) -> float:
    """Return the quantile of a profile cell that the policy trusts, with its margin, before correction."""
    quantile_s: float = {"p50": cell.p50_s, "p95": cell.p95_s, "p99": cell.p99_s}[policy.safety_quantile]
    return quantile_s * (1.0 + policy.safety_margin_ratio)


def safe_table(variant: Variant, policy: ModelPolicy, max_rows: int) -> tuple[float, ...]:
    """Return the uncorrected prediction for 1..max_rows rows, index 0 unused, in seconds.

    A table, because scheduling asks for these figures many times in one decision.
    """
    return (0.0, *(safe_quantile_s(variant.profile.at(rows), policy) for rows in range(1, max_rows + 1)))
