"""Which candidates become tiers.

A candidate is on the front if no other is at least as right, fast, small and lean, and better in one of these. Of the
front a ladder takes the ``tiers`` that are worth most to requests whose budget may be anything between the fastest
one's time and full's, evenly on a log scale: each is answered by the best tier in its time, so the worth of a ladder
is the area below its staircase::

    sum over tiers, fastest first, of score(i) * (log t(i+1) - log t(i)),   t(last + 1) = full's time

This is the hypervolume of two objectives, whose best subset dynamic programming finds exactly (Bringmann, Friedrich
and Klitzke 2014). It sets tiers where accuracy rises, and few where it does not.

A score is the share of validation rows that are right. Where a hundred rows judge, many candidates are equally right;
the nearer one to full's answers is then better, by a term too small to outweigh a single row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from variants.search.space import Choice, Precision

TIE: Final = 0.5
"""The part of one row that the largest divergence can take away."""
WORST_DIVERGENCE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One network of the space as scored: on ``rows`` validation rows, its ``p50_s`` predicted."""

    trial: int
    choice: Choice
    precision: Precision
    accuracy: float
    divergence: float
    rows: int
    p50_s: float
    file_bytes: int
    memory_bytes: int

    @property
    def score(self) -> float:
        """Accuracy, and where that is equal the nearness to full."""
        return self.accuracy - min(self.divergence, WORST_DIVERGENCE) * TIE / self.rows

    @property
    def objectives(self) -> tuple[float, float, float, float]:
        """What a study looks at: score upwards, seconds, bytes and resident bytes downwards."""
        return self.score, self.p50_s, float(self.file_bytes), float(self.memory_bytes)


def find_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that no other dominates, fastest first."""
    front = [one for one in candidates if not any(_dominates(other, one) for other in candidates)]
    unlike = {one.objectives: one for one in front}
    return sorted(unlike.values(), key=lambda one: one.p50_s)


def choose_ladder(candidates: Sequence[Candidate], tiers: int, end_s: float) -> list[Candidate]:
    """Return at most ``tiers`` of the front, most accurate first, for budgets up to ``end_s``, full's time."""
    front = _rising([one for one in find_front(candidates) if one.p50_s < end_s])
    chosen = range(len(front)) if len(front) <= tiers else _best_subset(front, tiers, end_s)
    return [front[number] for number in reversed(chosen)]


def _dominates(better: Candidate, worse: Candidate) -> bool:
    """Tell whether ``better`` is no worse in every objective and better in one."""
    mine, others = better.objectives, worse.objectives
    pairs = list(zip((-mine[0], *mine[1:]), (-others[0], *others[1:]), strict=True))
    return all(one <= other for one, other in pairs) and any(one < other for one, other in pairs)


def _rising(front: Sequence[Candidate]) -> list[Candidate]:
    """Return those that are better than every faster one: the others are there for bytes or memory alone."""
    kept: list[Candidate] = []
    for one in front:
        if not kept or one.score > kept[-1].score:
            kept.append(one)
    return kept


def _best_subset(front: Sequence[Candidate], tiers: int, end_s: float) -> tuple[int, ...]:
    """Return the numbers of the ``tiers`` candidates of the largest area."""
    area: dict[int, tuple[float, tuple[int, ...]]] = {}
    for number, one in enumerate(front):
        area[number] = one.score * log(end_s / one.p50_s), (number,)
    for _ in range(tiers - 1):
        longer = {}
        for number, one in enumerate(front):
            before = [
                (worth + (one.score - front[last].score) * log(end_s / one.p50_s), (*chosen, number))
                for last, (worth, chosen) in area.items()
                if last < number
            ]
            if before:
                longer[number] = max(before)
        area = longer
    return max(area.values())[1]
