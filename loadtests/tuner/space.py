"""What may be changed: the thresholds, the values tried for each, and the steps between them.

Values stand on coarse ladders (a factor of about 1.8 for prices), because finer differences drown in the difference
between one hour of traffic and the next. A threshold is searched only where it can matter: cascades where the model
has some, a price of CPU time where the user caps it, the choice of variants where memory is capped, batches where the
model takes any.

Requests that name no budget are held to the promise, and may be served by a shorter default budget. Left alone are the
hardware classes (docs/decisions/0009: what narrowing them gains) and ``weight``, which says what other models are owed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise, zip_longest
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.domain.policy_file import ModelPolicy
from service.policy.deferral import gains_by_batching

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtests.simulator.ladder import Ladder
    from loadtests.simulator.workload import Workload
    from loadtests.tuner.question import Question

Candidate = tuple[int, ...]
"""The place of each dimension's value."""

_BURST_PRICES: Final = (0.0, *(round(10.0 ** (power / 4), 6) for power in range(-12, 5)))
_SHORTAGE_WEIGHTS: Final = (0.0, 5.0, 20.0, 40.0, 80.0, 320.0)
_MARGINS: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_QUEUES: Final = (16, 64, 250, 1000)
_CASCADE_MARGINS: Final = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
_BUDGET_SHARES: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Default budgets, as shares of the promised one."""

_EXPLORATIONS: Final = (0.0, 0.01, 0.03, 0.1)
_QUANTILES: Final = ("p50", "p95", "p99")
_MOST_COARSE: Final = 9
_MOST_VARIANT_SETS: Final = 16
_FURTHER: Final = 10


@dataclass(frozen=True, slots=True)
class Dimension:
    """One threshold and the values that it may take, neighbours beside each other."""

    field: str
    values: tuple[Any, ...]

    def coarse(self) -> Sequence[int]:
        """Return the places of few enough values for a first sweep."""
        return range(0, len(self.values), -(-len(self.values) // _MOST_COARSE))

    def steps(self, place: int) -> Iterator[int]:
        """Yield the places beside a value; two each way where there are many."""
        reach = 2 if len(self.values) > _FURTHER else 1
        for step in range(-reach, reach + 1):
            if step and 0 <= place + step < len(self.values):
                yield place + step


@dataclass(frozen=True, slots=True)
class Space:
    """All dimensions around a base policy."""

    base: ModelPolicy
    dimensions: tuple[Dimension, ...]

    @property
    def start(self) -> Candidate:
        """The base policy."""
        return tuple(item.values.index(getattr(self.base, item.field)) for item in self.dimensions)

    @property
    def size(self) -> int:
        """How many candidates there are."""
        count = 1
        for item in self.dimensions:
            count *= len(item.values)
        return count

    def policy(self, candidate: Candidate) -> ModelPolicy:
        """Return a candidate as a policy."""
        return ModelPolicy.model_validate({**self.base.model_dump(exclude_unset=True), **self.settings(candidate)})

    def settings(self, candidate: Candidate) -> dict[str, Any]:
        """Return a candidate's thresholds by name."""
        return {item.field: item.values[place] for item, place in zip(self.dimensions, candidate, strict=True)}

    def sweeps(self) -> list[Candidate]:
        """Return the start with one threshold changed, in rounds: one value of each threshold, then another of each."""
        rows = [
            [self._moved(self.start, number, place) for place in item.coarse() if place != self.start[number]]
            for number, item in enumerate(self.dimensions)
        ]
        return [item for round_ in zip_longest(*rows) for item in round_ if item is not None]

    def neighbours(self, candidate: Candidate) -> list[Candidate]:
        """Return the candidates one step away in one threshold."""
        return [
            self._moved(candidate, number, place)
            for number, item in enumerate(self.dimensions)
            for place in item.steps(candidate[number])
        ]

    def without(self, candidate: Candidate) -> list[Candidate]:
        """Return the candidate with one threshold back at the start's, for each one that differs."""
        start = self.start
        return [
            self._moved(candidate, number, start[number])
            for number in range(len(self.dimensions))
            if candidate[number] != start[number]
        ]

    def draw(self, rng: np.random.Generator) -> Candidate:
        """Return a candidate at random, each threshold the start's with probability one half."""
        return tuple(
            start if rng.random() < 0.5 else int(rng.integers(len(item.values)))  # noqa: PLR2004 - one half
            for start, item in zip(self.start, self.dimensions, strict=True)
        )

    @staticmethod
    def _moved(candidate: Candidate, number: int, place: int) -> Candidate:
        return (*candidate[:number], place, *candidate[number + 1 :])


def make_space(question: Question) -> Space:
    """Return what may be changed for this question."""
    ladder, limits = question.ladder, question.limits
    base = _affordable(question)
    fields: dict[str, Sequence[Any]] = {
        "burst_price": _BURST_PRICES,
        "shortage_weight": _SHORTAGE_WEIGHTS,
        "safety_quantile": _QUANTILES,
        "safety_margin_ratio": _MARGINS,
        "max_queued": _QUEUES,
    }
    if ladder.max_batch_size > 1:
        fields["max_batch_size"] = _doublings(min(ladder.max_batch_size, 64))
    if gains_by_batching(ladder.costs().tables, ladder.max_batch_size):
        fields["defers"] = (False, True)
    if any(_leaves_budgets_open(load) for load in question.tuning):
        fields["default_budget_ms"] = [round(share * base.default_budget_ms, 6) for share in _BUDGET_SHARES]
    if question.machine.is_learning:
        fields["exploration_share"] = _EXPLORATIONS
    if ladder.plans:
        fields["cascades"] = (False, True)
        fields["cascade_margin_ratio"] = _CASCADE_MARGINS
    if limits.objective == "cost" or limits.busy_ratio < 1.0:
        fields["price_per_cpu_s"] = _prices(ladder)
    if limits.memory_bytes < float("inf"):
        fields["variants"] = _variant_sets(question)
    return Space(base, tuple(Dimension(name, _with(values, getattr(base, name))) for name, values in fields.items()))


def _leaves_budgets_open(load: Workload) -> bool:
    return any(not load.kinds[place].names_budget for place in np.unique(load.kind))


def _with(values: Sequence[Any], own: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a threshold of any type
    if own in values:
        return tuple(values)
    return tuple(sorted((*values, own))) if isinstance(own, int | float) else (own, *values)


def _doublings(most: int) -> tuple[int, ...]:
    return tuple(2**power for power in range(most.bit_length()) if 2**power <= most)


def _prices(ladder: Ladder) -> tuple[float, ...]:
    """Return prices of a CPU-second between what the ladder's steps gain in one, and above all; others do the same."""
    cells = [(item.profile.at(1).p50_s, item.accuracy) for item in ladder.variants]
    gains = sorted(
        abs(one[1] - other[1]) / abs(one[0] - other[0])
        for one, other in combinations(cells, 2)
        if one[0] != other[0] and one[1] != other[1]
    )
    if not gains:
        return (0.0,)
    between = [(low * high) ** 0.5 for low, high in pairwise(gains)]
    return tuple(dict.fromkeys(float(f"{price:.3g}") for price in (0.0, *between, gains[-1] * 3)))


def _variant_sets(question: Question) -> tuple[tuple[str, ...], ...]:
    """Return the sets of variants that fit into memory and to which none can be added, most accurate first.

    A set that leaves a hardware class without a variant is none.
    """
    ladder, most_bytes = question.ladder, question.limits.memory_bytes
    kinds = [set(kind.candidates) for load in (*question.tuning, *question.judging) for kind in load.kinds]
    sizes = {item.name: item.memory_bytes for item in ladder.variants}
    fitting = [
        set(names)
        for count in range(1, len(sizes) + 1)
        for names in combinations(sizes, count)
        if sum(sizes[name] for name in names) <= most_bytes
    ]
    full = [names for names in fitting if not any(names < other for other in fitting)]
    full = [names for names in full if all(not kind or kind & names for kind in kinds)]
    ordered = [tuple(name for name in ladder.names if name in names) for names in full]
    return tuple(sorted(ordered, key=lambda names: [ladder.names.index(name) for name in names])[:_MOST_VARIANT_SETS])


def _affordable(question: Question) -> ModelPolicy:
    """Return the base policy, with the first set of variants that fits where its own does not."""
    ladder, base, most_bytes = question.ladder, question.base, question.limits.memory_bytes
    named = base.variants or ladder.names
    if sum(item.memory_bytes for item in ladder.variants if item.name in named) <= most_bytes:
        return base
    sets = _variant_sets(question)
    if not sets:
        least = min(item.memory_bytes for item in ladder.variants)
        raise ValueError(
            f"no variant fits into {most_bytes / 2**20:.1f} MiB; the smallest needs {least / 2**20:.1f} MiB"
            if least > most_bytes
            else f"no variants that fit into {most_bytes / 2**20:.1f} MiB suit every hardware class of the recording"
        )
    return base.model_copy(update={"variants": sets[0]})
