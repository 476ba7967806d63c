"""The search: sweeps and draws raced on short slices of the arrivals, then steps of a pattern on all of them.

1. Every threshold's values one at a time, and candidates at random, on a ninth of the arrivals; the best third of them
   on a third; the best of these on all (successive halving: Jamieson and Talwalkar, AISTATS 2016).
2. From the best: all neighbours, and the candidate that takes every step which helped alone. The best of them is the
   next centre; where none is better, the next best of the race is one (pattern search: Hooke and Jeeves, 1961).
   A slice holds the busiest stretch, so that on a brutal trace nothing keeps the floor there, and attainment would
   choose alone: of those that go on, every other one is chosen by the objective.
3. The best of all, and the base, once more under other luck, three times over: the best of many is the luckiest, too.
4. What does not pay goes back: each threshold that differs from the base is put back where that loses less than
   ``_WORTH`` of the objective and no limit, by the same luck. A policy file with two changes is read; one with seven
   is believed.

The surface is nearly separable and flat around its top, with few thresholds that matter for a given trace, so that a
model of it (Gaussian processes, tree-structured estimators) has nothing to gain over steps; and everything here is
deterministic, which is what makes a search resumable from its notebook.

The budget is in runs of the whole tuning part. ``Ctrl-C`` ends the search; the best so far is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.tuner.trials import AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtests.tuner.score import Score
    from loadtests.tuner.space import Candidate
    from loadtests.tuner.trials import Trials

DEFAULT_BUDGET: Final = 100.0
_STRIDES: Final = (9, 3)
_KEPT: Final = 3
_DRAWN: Final = 24
_FINALISTS: Final = 6
_WORTH: Final = 1e-4
_TINY: Final = 1e-12
_SETTLING: Final = 0.2
"""The share of the budget for other luck, and that for putting back."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search is: cost so far and allowed, in runs of the tuning part, and the best so far on all of it."""

    spent: float
    budget: float
    best: Score
    tried: int


@dataclass(slots=True)
class Search:
    """One search; after ``run`` its fields say what came of it."""

    trials: Trials
    budget: float = DEFAULT_BUDGET
    seed: int = 0
    on_progress: Callable[[Progress], None] = lambda _: None
    scores: dict[Candidate, Score] = field(default_factory=dict)
    """Of all candidates tried on the whole tuning part."""
    settled: dict[Candidate, Score] = field(default_factory=dict)
    """Of the last ones, under other luck."""
    is_interrupted: bool = False
    best: Candidate = ()

    def run(self) -> Candidate:
        """Search, and return the best candidate; the base policy if nothing is better."""
        start = self.best = self.trials.space.start
        try:
            self._try_whole([start])
            self._climb(self._race())
            self._settle()
            self._put_back()
        except KeyboardInterrupt:
            self.is_interrupted = True
            if not self.scores:
                raise
        return self.best

    def runners_up(self, count: int) -> list[Candidate]:
        """Return the next best under other luck that keep the limits, best first."""
        ranked = sorted(
            self.settled, key=lambda item: (self.settled[item], tuple(-place for place in item)), reverse=True
        )
        others = [item for item in ranked if item not in (self.best, self.trials.space.start)]
        return [item for item in others if self.settled[item].kept >= 0.0][:count]

    def _race(self) -> list[Candidate]:
        """Return candidates for the climb, best first."""
        space, rng = self.trials.space, np.random.default_rng([self.seed, 7])
        drawn = [space.draw(rng) for _ in range(_DRAWN)]
        runners = list(dict.fromkeys([space.start, *space.sweeps(), *drawn]))
        for stride in _STRIDES:
            # A short race may cost as much as a half of the budget; a smaller budget has a smaller field.
            room = int(self.budget / 2 / len(_STRIDES) / self.trials.cost(stride))
            runners = runners[: max(_FINALISTS, room)]
            scores = self.trials.run(stride, runners)
            order = _by_turns(scores)
            runners = [runners[place] for place in order[: max(2 * _FINALISTS, len(order) // _KEPT)]]
            self._tell()
        runners = list(dict.fromkeys([*runners[: 2 * _FINALISTS], space.start]))
        self._try_whole(runners)
        return sorted((item for item in runners if item in self.scores), key=self._rank, reverse=True)

    def _climb(self, centres: Sequence[Candidate]) -> None:
        for centre in centres:
            while True:
                around = self.trials.space.neighbours(centre)
                self._try_whole(around)
                better = [item for item in around if item in self.scores and self._gain(item, centre) > 0.0]
                joined = self._joined(centre, better)
                self._try_whole([joined])
                tried = [item for item in (*around, joined) if item in self.scores]
                best = max(tried, key=self._rank, default=centre)
                if self._left() < 1.0:
                    return
                if self._gain(best, centre) <= 0.0:
                    break
                centre = best  # noqa: PLW2901 - the next step starts there

    def _settle(self) -> None:
        count = max(1, int(_SETTLING * self.budget / self.trials.cost(AGAIN)) - 1)
        ranked = list(dict.fromkeys([self.best, *sorted(self.scores, key=self._rank, reverse=True)]))[:count]
        self._try_again([self.trials.space.start, *ranked])
        for item in ranked:
            if self._gain(item, self.best, self.settled) > 0.0:
                self.best = item

    def _put_back(self) -> None:
        found = current = self.best
        singles = self.trials.space.without(found)
        self._try_again(singles)
        for single in sorted(singles, key=lambda item: self._gain(item, found, self.settled), reverse=True):
            simpler = tuple(new if new != old else kept for new, old, kept in zip(single, found, current, strict=True))
            self._try_again([simpler])
            if self._gain(simpler, found, self.settled) < -_WORTH:
                break
            current = simpler
        self.best = current

    def _joined(self, centre: Candidate, better: Sequence[Candidate]) -> Candidate:
        """Return the centre with, for each threshold, the best of the steps that helped."""
        taken = list(centre)
        for item in sorted(better, key=self._rank):
            taken = [new if new != old else kept for new, old, kept in zip(item, centre, taken, strict=True)]
        return tuple(taken)

    def _try_again(self, candidates: Sequence[Candidate]) -> None:
        news = [item for item in dict.fromkeys(candidates) if item not in self.settled]
        self.settled.update(zip(news, self.trials.run(AGAIN, news), strict=True))
        self._tell()

    def _try_whole(self, candidates: Sequence[Candidate]) -> None:
        news = [item for item in dict.fromkeys(candidates) if item not in self.scores]
        if self.scores:
            news = news[: max(0, int(self._left()))]
        if not news:
            return
        for item, found in zip(news, self.trials.run(1, news), strict=True):
            self.scores[item] = found
            if self._gain(item, self.best) > 0.0:
                self.best = item
        self._tell()

    def _gain(self, item: Candidate, other: Candidate, scores: Mapping[Candidate, Score] | None = None) -> float:
        """Return how much better a candidate is; infinitely if it keeps the limits better, and less if worse."""
        known = self.scores if scores is None else scores
        one, two = known[item], known[other]
        if abs(one.kept - two.kept) > _TINY:
            return float("inf") if one.kept > two.kept else -float("inf")
        gain = one.objective - two.objective
        return gain / abs(two.objective) if abs(gain) > _TINY and two.objective else 0.0

    def _rank(self, item: Candidate) -> tuple[Score, tuple[int, ...]]:
        return self.scores[item], tuple(-place for place in item)

    def _left(self) -> float:
        return (1.0 - 2.0 * _SETTLING) * self.budget - self.trials.spent

    def _tell(self) -> None:
        self.on_progress(Progress(self.trials.spent, self.budget, self.scores[self.best], len(self.scores)))


def _by_turns(scores: Sequence[Score]) -> list[int]:
    """Return all places in an order in which the best by score and the best by objective take turns."""
    every = range(len(scores))
    by_score = sorted(every, key=lambda place: scores[place], reverse=True)
    by_objective = sorted(every, key=lambda place: scores[place].objective, reverse=True)
    return list(dict.fromkeys(place for pair in zip(by_score, by_objective, strict=True) for place in pair))
