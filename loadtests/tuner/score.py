"""How good a policy is on some arrivals: its figures in the simulator, and one order over candidates.

A candidate that breaks a limit ranks below every one that keeps all, by how much it misses; among the others the
objective decides. While searching, attainment counts at its lower end, the mean less one standard error over stretches
of time: a policy that only just keeps a floor on the arrivals it was searched on misses it on others half the time.
No more than half of the misses that the floor allows is taken off: one brutal burst makes the error so large that no
policy would keep the floor, and attainment would be bought at any price.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.simulator.policy import LatePolicy
from loadtests.simulator.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadtests.simulator.result import Result
    from loadtests.simulator.workload import Workload
    from loadtests.tuner.question import Limits, Question
    from service.domain.policy_file import ModelPolicy

_STRETCHES: Final = 20
_MOST_DOUBT: Final = 0.5
"""The most that is taken off for the error, as a share of the misses that the floor allows."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy on one workload; shares are 0..1.

    ``accuracy`` is effective accuracy with each answer counted at its variant's accuracy, which frees it of the luck
    of the draw; with an answer sheet it is what the answers to the sheet's rows really are, because that of a cascade
    is no mean of its stages'. ``answer_accuracy`` is the mean over answers in time; ``error`` the standard error of
    ``attainment``.
    """

    offered: int
    attainment: float
    error: float
    accuracy: float
    answer_accuracy: float
    busy_ratio: float
    cpu_s: float
    """Per request."""


@dataclass(frozen=True, slots=True, order=True)
class Score:
    """Larger is better: first ``kept`` (0, or less by what the limits are missed by), then the objective."""

    kept: float
    objective: float


def play(question: Question, policy: ModelPolicy, workload: Workload, seed: int) -> Result:
    """Simulate a policy on a workload, of whose kinds each keeps those of its variants that the policy allows."""
    rule, fleet = LatePolicy("tuned", uses_plans=policy.cascades), question.fleet(policy)
    names = set(fleet.models[0].names)
    kinds = tuple(replace(kind, candidates=tuple(c for c in kind.candidates if c in names)) for kind in workload.kinds)
    return simulate(replace(workload, kinds=kinds), fleet, rule, seed=seed)


def figures_of(result: Result) -> Figures:
    """Return the figures of a simulation."""
    summary, on_time = result.summary(), result.is_on_time
    parts = [part.mean() for part in np.array_split(on_time, min(_STRETCHES, len(on_time)))]
    accuracy = float(_worth(result).sum() / summary.offered)
    error = float(np.std(parts, ddof=1) / np.sqrt(len(parts))) if len(parts) > 1 else 0.0
    return Figures(
        offered=summary.offered,
        attainment=summary.attainment,
        error=error,
        accuracy=accuracy,
        answer_accuracy=accuracy / summary.attainment if summary.attainment else 0.0,
        busy_ratio=summary.busy_ratio,
        cpu_s=float(result.busy_s.sum()) / summary.offered,
    )


def mean_of(found: Sequence[Figures]) -> Figures:
    """Return the figures of several workloads as one, each weighted by its requests."""
    weights = np.array([item.offered for item in found], np.float64)
    names = [name for name in asdict(found[0]) if name != "offered"]
    means = {name: float(np.average([getattr(item, name) for item in found], weights=weights)) for name in names}
    return Figures(offered=int(weights.sum()), **means)


def credit(result: Result, limits: Limits) -> NDArray[np.float64]:
    """Return what each request adds to the objective, (N,): its answer's accuracy if on time, or less CPU time."""
    if limits.objective == "cost":
        run_s = np.nan_to_num((result.finish_s - result.start_s) / np.maximum(result.batch, 1))
        return -run_s
    return _worth(result)


def _worth(result: Result) -> NDArray[np.float64]:
    """Return what each request's answer is worth, (N,): 0 unless it was in time."""
    has_sheet = result.fleet.models[0].answers is not None
    return np.where(result.is_on_time, result.is_correct if has_sheet else result.expected(), 0.0)


def score(found: Sequence[Figures], limits: Limits, errors: float = 1.0) -> Score:
    """Return the score over several workloads; attainment counts less ``errors`` standard errors."""
    missed = sum(sum(misses(item, limits, errors).values()) for item in found)
    offered = sum(item.offered for item in found)
    values = [-item.cpu_s if limits.objective == "cost" else item.accuracy for item in found]
    return Score(-missed, sum(value * item.offered for value, item in zip(values, found, strict=True)) / offered)


def misses(found: Figures, limits: Limits, errors: float = 0.0) -> dict[str, float]:
    """Return the limits that are broken, and by how much."""
    doubt = min(errors * found.error, _MOST_DOUBT * (1.0 - limits.attainment))
    short = {
        "attainment": limits.attainment - (found.attainment - doubt),
        "accuracy": limits.accuracy - found.answer_accuracy,
        "busy_ratio": found.busy_ratio - limits.busy_ratio,
    }
    return {name: amount for name, amount in short.items() if amount > 0.0}
