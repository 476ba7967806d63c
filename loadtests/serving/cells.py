"""One cell of the simulated comparison: a trace at a load, everybody on the same arrivals, rows and luck.

The oracle gives three figures that no schedule exceeds: expected accuracy (an answer counts its variant's accuracy),
effective accuracy with the answers known (which bounds cascades too), and attainment, which is the bound with every
variant's accuracy taken as 1.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from loadtests.serving.contenders import contenders
from loadtests.serving.setting import at_rate, full_rate_hz
from loadtests.simulator.oracle import upper_bound
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import make_workload

if TYPE_CHECKING:
    from loadtests.serving.setting import Setting, Times
    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.workload import Workload


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
        policy = item.make(workload, own, setting.seed)
        figures[item.name] = asdict(simulate(workload, own, policy, seed=setting.seed).summary())
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
