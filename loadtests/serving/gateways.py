"""Real gateways under the benchmark: spawned with a policy each, one lane on a core, and what runs on them give.

The lane is pinned to the first core, the generator to the last, where it goes before everything else (with the right to
real-time priority): on two cores the event loop may use both, and would else make the generator late. All gateways of a
part are up at once and idle but for the one under load, so that runs can be interleaved.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests import gateway, outcome
from loadtests.h2load import LoadError
from loadtests.plan import Job, Mix, RequestClass, Schedule, draw_schedule
from loadtests.runner import run_job
from loadtests.serving.setting import write_model_policy
from loadtests.trial import find_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from loadtests.inputs import Inputs
    from loadtests.plan import Address, Target
    from loadtests.runner import Run
    from loadtests.serving.setting import Setting, Times
    from service.domain.policy_file import ModelPolicy

_PROTOCOL: Final = "http-binary"
_CONNECTIONS: Final = 32
_WARMUP_S: Final = 0.5
_WARMUP_HZ: Final = 40.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """One that runs: where, what its model takes, and the rows to send."""

    address: Address
    target: Target
    inputs: Inputs
    core: int


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What came of a run: the measured requests as columns, and whether the generator kept its schedule."""

    run: Run
    judged: outcome.Judged

    def figures(self) -> dict[str, Any]:
        """Return the shares of all offered, the accuracy of the answers, and goodput."""
        judged = self.judged
        offered = len(judged.is_answered)
        answered = int(judged.is_answered.sum())
        scheduled = judged.columns["scheduled_s"]
        length_s = float(scheduled[-1] - scheduled[0]) * offered / max(1, offered - 1)
        found: dict[str, Any] = {
            "offered": offered,
            "attainment": float(judged.is_on_time.mean()),
            "answered": answered / offered,
            "goodput_hz": float(judged.is_on_time.sum()) / length_s,
            "latency_p50_s": _percentile(judged.columns["latency_s"][judged.is_answered], 50),
            "latency_p99_s": _percentile(judged.columns["latency_s"][judged.is_answered], 99),
            "shares": self.shares(),
            "is_valid": self.run.lag.is_valid,
            "faults": list(self.run.lag.faults),
        }
        if judged.is_correct is not None:
            found["effective_accuracy"] = float((judged.is_on_time & judged.is_correct).mean())
            found["mean_accuracy"] = float(judged.is_correct.sum()) / answered if answered else None
        return found

    def shares(self) -> dict[str, float]:
        """Return each variant's share of the answers."""
        places = self.judged.columns["variant"][self.judged.is_answered]
        names = self.run.recording.variants
        return {name: float((places == place).mean()) for place, name in enumerate(names)} if len(places) else {}


@contextlib.contextmanager
def gateways(setting: Setting, policies: Mapping[str, ModelPolicy]) -> Iterator[dict[str, Gateway]]:
    """Run a gateway for each policy until the block ends.

    Raises:
        LoadError: One did not start, or the model's rows are not to be had.
    """
    core, _ = gateway.split_cores()
    setting.work.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        found: dict[str, Gateway] = {}
        rows: Inputs | None = None
        for place, (name, policy) in enumerate(policies.items()):
            path = setting.work / f"policy-{place}.yaml"
            write_model_policy(path, setting.model, setting.narrowed(policy))
            address = stack.enter_context(start(setting, path))
            target = gateway.find_target(address, setting.model, _PROTOCOL)
            rows = rows or find_inputs(target, setting.repository, setting.inputs, setting.seed)
            found[name] = Gateway(address, target, rows, core)
        yield found


def start(setting: Setting, policy: Path) -> contextlib.AbstractContextManager[Address]:
    """Return a gateway to be run with one lane, which no run passes by: what is simulated has no inline runs either."""
    flags = ["--lanes", "1", "--inline-compute-ms", "0", "--policy", str(policy)]
    cores = frozenset(os.sched_getaffinity(0))
    return gateway.running_gateway(setting.repository, cores, flags)


def schedule_of(setting: Setting, times_s: Times, rows: int) -> Schedule:
    """Return the schedule of these arrivals after half a second of warm-up; every request has the same budget."""
    warm = np.arange(int(_WARMUP_S * _WARMUP_HZ)) / _WARMUP_HZ
    mix = Mix((RequestClass("all", setting.budget()),))
    return draw_schedule(np.concatenate([warm, times_s + _WARMUP_S]), mix, rows, setting.seed, warmups=len(warm))


def play_on(site: Gateway, setting: Setting, times_s: Times, variant: str = "") -> Played:
    """Send arrivals to a gateway, pinned to a variant where one is named.

    Raises:
        LoadError: The generator failed.
    """
    if not len(times_s):
        raise LoadError("a run needs at least one arrival")
    kinds = (RequestClass("all", setting.budget(), variant=variant),)
    schedule = schedule_of(setting, times_s, len(site.inputs.rows))
    job = Job(
        site.target, site.inputs.rows, kinds, schedule, setting.timeout_s, site.core, _CONNECTIONS, goes_first=True
    )
    run = run_job(job)
    return Played(run, outcome.judge(run.recording, kinds, site.inputs.labels))


def _percentile(values: Times, percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None
