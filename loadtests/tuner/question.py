"""What is to be tuned: a ladder, the arrivals to tune and to judge on, and what the user holds a policy to.

The arrivals are split in time, so that nothing of what judges a policy was seen while it was searched. A long part is
thinned to whole stretches of time, each served from idle lanes, of which some are busy and some calm.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from loadtests.h2load import LoadError
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.workload import Kind, Workload, make_workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loadtests.simulator.ladder import Ladder
    from service.domain.policy_file import ModelPolicy

Objective = Literal["accuracy", "cost"]

MOST_REQUESTS: Final = 30_000
"""Requests of one part that are simulated; a longer part is thinned."""

_ALIKE: Final = Kind()
_BLOCKS: Final = 27
_LEAST_SLICE: Final = 150
_LEAST_PART: Final = 8
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SLO: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?)\s*=\s*(\d+(?:\.\d+)?)\s*(us|ms|s)")


@dataclass(frozen=True, slots=True)
class Slo:
    """A promise about latency: this share (0..1) of all that is offered is answered within ``budget_s``."""

    share: float
    budget_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What a policy must keep on every trace; the rest of the time the objective counts.

    ``attainment`` is a share of all offered requests, ``accuracy`` the mean expected accuracy of answers in time,
    ``busy_ratio`` the share of the lanes' time that computing may take, all 0..1. Memory is that of the variants'
    loaded files.
    """

    attainment: float = 0.99
    accuracy: float = 0.0
    busy_ratio: float = 1.0
    memory_bytes: float = float("inf")
    objective: Objective = "accuracy"


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Everything that a search depends on; two questions with the same digest have the same answer."""

    ladder: Ladder
    tuning: tuple[Workload, ...]
    judging: tuple[Workload, ...]
    limits: Limits = Limits()
    lanes: int = 2
    machine: Machine = field(default_factory=lambda: Machine(is_learning=True))
    seed: int = 0

    @property
    def base(self) -> ModelPolicy:
        """The policy that is improved upon."""
        return self.ladder.policy

    def fleet(self, policy: ModelPolicy) -> Fleet:
        """Return one gateway under a policy, with the variants that it allows."""
        allowed = policy.variants or self.ladder.names
        kept = tuple(item for item in self.ladder.variants if item.name in allowed)
        usable = (plan for plan in self.ladder.plans if {plan.variant, plan.escalate_to} <= set(allowed))
        plans = tuple(plan.scaled(policy.cascade_margin_ratio) for plan in usable)
        return Fleet(
            (replace(self.ladder, policy=policy, variants=kept, plans=plans),), 1, self.lanes, machine=self.machine
        )

    def digest(self) -> str:
        """Return what names the question: a hash over profiles, arrivals, limits, machine and seed."""
        ladder, text = self.ladder, hashlib.sha256()
        words = (ladder.name, ladder.variants, ladder.max_batch_size, ladder.policy, ladder.plans)
        text.update(repr((words, self.limits, self.lanes, self.machine, self.seed)).encode())
        for load in self.tuning:
            for array in (load.arrival_s, load.budget_s, load.timeout_s, load.criticality, load.kind, load.row):
                text.update(np.ascontiguousarray(array).tobytes())
            text.update(repr(load.kinds).encode())
        if ladder.answers is not None:
            text.update(ladder.answers.correct.tobytes() + ladder.answers.margins.tobytes())
        return text.hexdigest()


def read_slo(text: str) -> Slo:
    """Read an objective such as ``p99=20ms``.

    Raises:
        LoadError: It is not of that form.
    """
    found = _SLO.fullmatch(text.strip())
    if found is None or not float(found[2]) or not float(found[1]):
        raise LoadError(f"--slo is '{text}'; expected a percentile and a time, such as p99=20ms or p99.9=1.5s")
    return Slo(float(found[1]) / 100.0, float(found[2]) * _UNITS[found[3]])


def read_mix(text: str) -> tuple[tuple[float, float], ...]:
    """Read budgets in milliseconds with their shares, as in ``20:7,50:3``; return pairs of seconds and share.

    Raises:
        LoadError: It is not of that form.
    """
    try:
        pairs = [([*part.split(":"), "1"])[:2] for part in text.split(",")]
        mix = tuple((float(budget) / 1e3, float(share)) for budget, share in pairs)
    except ValueError:
        mix = ()
    if not mix or any(not 0.0 < value < float("inf") for pair in mix for value in pair):
        raise LoadError(f"--budget-ms is '{text}'; expected milliseconds, or several with shares such as 20:7,50:3")
    return mix


def ask(
    times_s: NDArray[np.float64], mix: tuple[tuple[float, float], ...], timeout_s: float, seed: int, kind: Kind = _ALIKE
) -> Workload:
    """Return the workload of these arrivals, all of one kind, each with a budget drawn from the mix."""
    budgets, shares = np.array(mix).T
    chosen = np.random.default_rng([seed, 6]).choice(len(budgets), len(times_s), p=shares / shares.sum())
    return make_workload(times_s, budgets[chosen], np.maximum(timeout_s, budgets[chosen]), kinds=(kind,))


def split(workload: Workload, judged: float) -> tuple[Workload, Workload]:
    """Return the first part in time and the last ``judged`` share (0..1) of it.

    Raises:
        LoadError: A part would not have requests at two moments.
    """
    first_s, last_s = float(workload.arrival_s[0]), float(workload.arrival_s[-1])
    cut = int(np.searchsorted(workload.arrival_s, first_s + (1.0 - judged) * (last_s - first_s), side="right"))
    times = workload.arrival_s
    if not 0 < cut < len(workload) or times[0] == times[cut - 1] or times[cut] == times[-1]:
        raise LoadError(
            f"a trace of {len(workload)} requests cannot be split at {1.0 - judged:.3g} of its time: {cut} requests "
            f"to tune on and {len(workload) - cut} to judge on; both need some, at two moments at least"
        )
    return workload.part(np.arange(cut)), workload.part(np.arange(cut, len(workload)))


def cut(workload: Workload, most: int = MOST_REQUESTS) -> Workload:
    """Return the workload, thinned to about ``most`` requests where it has more; busy and calm stretches alike."""
    stride = -(-len(workload) // most)
    if stride <= 1:
        return workload
    thinned = _stretches(workload, stride, stride // 2)
    # Where nearly all came in one stretch of time, the middling ones have next to nothing.
    return thinned if len(thinned) >= most // _LEAST_PART else _stretches(workload, stride, 0)


def slice_of(workload: Workload, stride: int) -> Workload:
    """Return about one ``stride``-th of the workload's time, the busiest stretch included; all of a short one."""
    if stride <= 1 or len(workload) < _LEAST_SLICE * stride:
        return workload
    return _stretches(workload, stride, 0)


def _stretches(workload: Workload, stride: int, offset: int) -> Workload:
    """Return every ``stride``-th stretch of time, counted from the busiest, in the order of time."""
    blocks = _BLOCKS * max(1, stride // 9)
    span_s = workload.arrival_s[-1] - workload.arrival_s[0]
    place = ((workload.arrival_s - workload.arrival_s[0]) / (span_s or 1.0) * blocks).astype(np.int64)
    place = np.minimum(place, blocks - 1)
    by_count = np.argsort(-np.bincount(place, minlength=blocks), kind="stable")
    kept = np.isin(place, by_count[offset::stride])
    return workload.part(np.flatnonzero(kept))
