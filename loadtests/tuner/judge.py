"""The judge: base and tuned policy side by side on arrivals that the search has not seen.

Both meet the same arrivals and the same luck, over several seeds of luck; the gain is the mean difference by request.
Its interval is a bootstrap over stretches of time (``loadtests.intervals``), since requests of one burst share a fate.

Four verdicts. *Refused*: the tuned policy breaks a limit on the unseen arrivals; nothing is written. *Needed*: it keeps
the limits and the base policy does not, whatever it costs in accuracy. *Better*: both keep them, and the interval of
the gain lies above zero. *Unproven*: both keep them, and it does not; the base stays.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.intervals import middle, resample
from loadtests.tuner.score import Figures, credit, figures_of, mean_of, misses, play

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadtests.tuner.question import Question
    from service.domain.policy_file import ModelPolicy

SEEDS: Final = 5
SEED_OFFSET: Final = 1000
"""Luck that judges is other luck than what was searched with."""


class Verdict(StrEnum):
    """What the unseen arrivals say about a tuned policy."""

    REFUSED = "refused"
    NEEDED = "needed"
    BETTER = "better"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Difference:
    """Tuned less base: the mean over requests, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """Figures of both on each unseen workload, means over the seeds; how they differ; and the verdict.

    ``gain`` is in the objective: effective accuracy, or seconds of CPU time less per request.
    """

    verdict: Verdict
    base: tuple[Figures, ...]
    tuned: tuple[Figures, ...]
    gain: Difference
    attainment_gain: Difference
    missed: dict[str, float]
    """The limits that the tuned policy breaks, each by its worst miss."""
    base_missed: dict[str, float]

    def document(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return asdict(self)


def judge(question: Question, base: ModelPolicy, tuned: ModelPolicy, *, seeds: int = SEEDS) -> Judgement:
    """Compare the two on the question's judging part."""
    first, second = (_measure(question, policy, seeds) for policy in (base, tuned))
    gain = _difference(second.credit - first.credit, question.seed)
    missed, base_missed = (_worst_misses(question, item.figures) for item in (second, first))
    return Judgement(
        verdict=_decide(missed, base_missed, gain),
        base=first.figures,
        tuned=second.figures,
        gain=gain,
        attainment_gain=_difference(second.on_time - first.on_time, question.seed),
        missed=missed,
        base_missed=base_missed,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    figures: tuple[Figures, ...]
    credit: NDArray[np.float64]  # (N,) over all workloads, means over seeds
    on_time: NDArray[np.float64]  # (N,)


def _measure(question: Question, policy: ModelPolicy, seeds: int) -> _Measured:
    figures, credits_, on_time = [], [], []
    for number, load in enumerate(question.judging):
        results = [play(question, policy, load, SEED_OFFSET * (seed + 1) + number) for seed in range(seeds)]
        of_seeds = [figures_of(result) for result in results]
        figures.append(replace(mean_of(of_seeds), offered=len(load)))
        credits_.append(np.mean([credit(result, question.limits) for result in results], axis=0))
        on_time.append(np.mean([result.is_on_time for result in results], axis=0))
    return _Measured(tuple(figures), np.concatenate(credits_), np.concatenate(on_time))


def _difference(by_request: NDArray[np.float64], seed: int) -> Difference:
    draws = resample(lambda places: float(by_request[places].mean()), len(by_request), seed)
    low, high = middle(draws)
    return Difference(float(by_request.mean()), low, high)


def _worst_misses(question: Question, figures: Sequence[Figures]) -> dict[str, float]:
    worst: dict[str, float] = {}
    for item in figures:
        for name, amount in misses(item, question.limits).items():
            worst[name] = max(amount, worst.get(name, 0.0))
    return worst


def _decide(missed: dict[str, float], base_missed: dict[str, float], gain: Difference) -> Verdict:
    if missed:
        return Verdict.REFUSED
    if base_missed:
        return Verdict.NEEDED
    return Verdict.BETTER if gain.low > 0.0 else Verdict.UNPROVEN
