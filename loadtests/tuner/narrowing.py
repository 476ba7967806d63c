"""``python -m loadtests.tuner.narrowing``: what it gains to allow a hardware class fewer tiers than suit it.

Two in five clients belong to a class. Its costliest variants are taken from it one after the other, on both draws of
four kinds of arrivals, with the same budgets as the others or shorter ones, under the default thresholds and under a
price on bursts; everything else, luck included, stays. docs/decisions/0009 draws the conclusion.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console

from loadtests.simulator.workload import Kind
from loadtests.tuner.bars import example_questions
from loadtests.tuner.score import figures_of, play

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loadtests.simulator.workload import Workload
    from loadtests.tuner.question import Question
    from service.domain.policy_file import ModelPolicy

_KINDS: Final = ("poisson", "gamma", "mmpp", "code")
_REQUESTS: Final = 2000
_CLASS_SHARE: Final = 0.4
_LUCKS: Final = 2
_SHORT_S: Final = 0.03
_BURST_PRICE: Final = 0.01


def main() -> int:
    """Print one line for each setting: effective accuracy in percent with all tiers, and what each narrowing adds."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        "arrivals, class's budget, burst_price: all tiers on two draws | less 1, 2, ... of the costliest variants"
    )
    for name, question in example_questions(_REQUESTS, _KINDS).items():
        names = question.ladder.names
        for budget_s in (question.base.default_budget_s, _SHORT_S):
            for price in (0.0, _BURST_PRICE):
                policy = question.base.model_copy(update={"burst_price": price})
                every = _accuracies(question, policy, names, budget_s)
                gains = [_accuracies(question, policy, names[less:], budget_s) - every for less in range(1, len(names))]
                words = [f"-{less} {gain[0]:+.2f} {gain[1]:+.2f}" for less, gain in enumerate(gains, 1)]
                setting = f"{name} {1e3 * budget_s:g} ms {price:g}: {every[0]:.2f} {every[1]:.2f}"
                console.print(setting, "|", "; ".join(words))
    return 0


def _accuracies(
    question: Question, policy: ModelPolicy, names: tuple[str, ...], budget_s: float
) -> NDArray[np.float64]:
    """Return effective accuracy in percent on the tuning and on the judging draw, (2,), means over luck."""
    loads = [_with_class(load, names, budget_s) for load in (question.tuning[0], question.judging[0])]
    return np.array(
        [
            np.mean([100.0 * figures_of(play(question, policy, load, seed)).accuracy for seed in range(_LUCKS)])
            for load in loads
        ]
    )


def _with_class(load: Workload, names: tuple[str, ...], budget_s: float) -> Workload:
    belongs = np.random.default_rng(5).random(len(load)) < _CLASS_SHARE
    return replace(
        load,
        kind=belongs.astype(np.int16),
        kinds=(Kind(), Kind(candidates=names)),
        budget_s=np.where(belongs, budget_s, load.budget_s),
    )


if __name__ == "__main__":
    sys.exit(main())
