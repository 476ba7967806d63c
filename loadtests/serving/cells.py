"""One cell of the simulated comparison: a trace at a load, everybody on the same arrivals and luck.

**Rows.** Where no cascade runs, rows decide nothing about a schedule. Its effective accuracy is then taken in the mean
over all rows of the answer sheet, an answer counting its variant's accuracy: one deal of rows would add a luck that is
greater than what separates policies (0.3 points at 6,000 requests). Where cascades run, which rows escalate decides
about both, so the rows are dealt anew four times from shuffled decks, and the figures are means.

The oracle gives three figures that no schedule exceeds in the mean over rows: expected accuracy (an answer counts its
variant's accuracy, or its cascade's), effective accuracy with the answers known, and attainment, which is the bound
with every variant's accuracy taken as 1.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.serving.contenders import contenders
from loadtests.serving.setting import at_rate, full_rate_hz
from loadtests.simulator.oracle import upper_bound
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import make_workload

if TYPE_CHECKING:
    from loadtests.serving.setting import Setting, Times
    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.policy import Policy
    from loadtests.simulator.workload import Workload

_DEALS: Final = 4


def workload_at(setting: Setting, times_s: Times, load: float, fleet: Fleet) -> Workload:
    """Return a trace's first requests at a load."""
    arrival_s = at_rate(times_s, setting.requests, load * full_rate_hz(fleet))
    return make_workload(arrival_s, setting.budget(), setting.timeout_s)


def run_cell(setting: Setting, trace: str, load: float) -> dict[str, Any]:
    """Return everybody's figures and the oracle's."""
    fleet = setting.fleet()
    workload = workload_at(setting, setting.arrivals()[trace], load, fleet)
    figures = {}
    for item in contenders(setting, load):
        own = setting.fleet(item.thresholds)
        figures[item.name] = figures_of(item.make(workload, own, setting.seed), workload, own, setting.seed)
    return {
        "trace": trace,
        "load": load,
        "policies": figures,
        "oracle": {
            "expected_accuracy": upper_bound(workload, fleet, seed=setting.seed),
            "effective_accuracy": upper_bound(workload, fleet, seed=setting.seed, knows_answers=True),
            "attainment": upper_bound(workload, all_right(fleet), seed=setting.seed),
        },
    }


def figures_of(policy: Policy, workload: Workload, fleet: Fleet, seed: int) -> dict[str, Any]:
    """Return the figures of a policy on a workload, in the mean over rows; see the module."""
    if not fleet.models[0].plans:
        found = asdict(simulate(workload, fleet, policy, seed=seed).summary())
        right, drawn = found["expected_accuracy"], found["effective_accuracy"]
        cpu_s = found["cpu_s_per_good_answer"] * drawn / right if right else 0.0
        return {**found, "effective_accuracy": right, "cpu_s_per_good_answer": cpu_s}
    every = [asdict(simulate(deal, fleet, policy, seed=seed).summary()) for deal in _deals(workload, fleet, seed)]
    means = {name: fmean(item[name] for item in every) for name, value in every[0].items() if isinstance(value, float)}
    return {**every[0], **means, "expected_accuracy": means["effective_accuracy"]}


def _deals(workload: Workload, fleet: Fleet, seed: int) -> list[Workload]:
    """Return the workload with rows dealt from shuffled decks, one deal going on where the last one stopped."""
    answers = fleet.models[0].answers
    assert answers is not None  # noqa: S101 - cascades need an answer sheet
    rows, count = answers.correct.shape[1], len(workload)
    rng = np.random.default_rng([seed, 2])
    dealt = np.concatenate([rng.permutation(rows) for _ in range(-(-_DEALS * count // rows))])
    parts = dealt[: _DEALS * count].astype(np.int32).reshape(_DEALS, count)
    return [replace(workload, row=part) for part in parts]


def all_right(fleet: Fleet) -> Fleet:
    """Return the fleet with every variant's accuracy taken as 1, so that a bound counts on-time answers."""
    models = tuple(
        replace(
            ladder,
            answers=None,
            plans=(),
            variants=tuple(replace(variant, accuracy=1.0) for variant in ladder.variants),
        )
        for ladder in fleet.models
    )
    return replace(fleet, models=models)
