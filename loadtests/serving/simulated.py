"""The simulated part: all cells, spread over processes, then the searches."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from loadtests.serving.cells import run_cell
from loadtests.serving.contenders import FULL, OURS_NAME, TUNED, contenders
from loadtests.serving.searches import (
    ACCURACY_LOSS,
    full_accuracy,
    highest_load,
    highest_load_of_oracle,
    least_seconds,
    overload,
)
from loadtests.serving.setting import full_rate_hz

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.serving.setting import Setting

    Job = tuple[Callable[..., Any], tuple[Any, ...]]

SEARCHED: Final = ("always-full-plain", FULL, "slackfit", OURS_NAME, TUNED)
OVERLOADED: Final = (FULL, "always-smallest", "slackfit", OURS_NAME, TUNED)


def run_simulated(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the figures of every cell and search."""
    traces = tuple(setting.arrivals())
    jobs = _cell_jobs(setting)
    jobs += [(search_trace, (setting, trace)) for trace in traces]
    jobs += [(search_overload, (setting,))]
    found = _spread(jobs, setting.processes, say)
    return {
        **_about(setting, found),
        "served": sorted((item for item in found if "loads" in item), key=lambda item: traces.index(item["trace"])),
        "overload": next(item["overload"] for item in found if "overload" in item),
    }


def run_hindsight(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the cells again where a run always takes its median time.

    The oracle knows all compute times. Where they vary it may pick the fast ones, which nobody can, and its bound tells
    little; where they do not, what is left between it and a policy is what the policy lacks, or the bound gives away.
    """
    machine = replace(setting.calibration.machine, is_exact=True)
    exact = replace(setting, calibration=replace(setting.calibration, machine=machine))
    return _about(exact, _spread(_cell_jobs(exact), exact.processes, say))


def _cell_jobs(setting: Setting) -> list[Job]:
    loads = sorted(setting.loads, reverse=True)
    return [(run_cell, (setting, trace, load)) for trace in setting.arrivals() for load in loads]


def _about(setting: Setting, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the cells among what was found, in order, and what they were run on."""
    traces, fleet = tuple(setting.arrivals()), setting.fleet()
    cells = [item for item in found if "policies" in item]
    cells.sort(key=lambda cell: (traces.index(cell["trace"]), cell["load"]))
    for cell in cells:
        cell["least_cpu_s"] = _least_cpu_s(setting, cell)
    return {
        "budget_s": setting.budget(),
        "lanes": setting.lanes,
        "requests": setting.requests,
        "full_hz": full_rate_hz(fleet),
        "full_accuracy": full_accuracy(fleet),
        "has_answers": fleet.models[0].answers is not None,
        "is_calibrated": setting.calibration.machine.loop is not None,
        "cells": cells,
    }


def search_trace(setting: Setting, trace: str) -> dict[str, Any]:
    """Return the load that each contender serves within the bar, and the oracle's."""
    times_s = setting.arrivals()[trace]
    chosen = [item for item in contenders(setting, 1.0) if item.name in SEARCHED]
    loads = {item.name: highest_load(setting, times_s, item) for item in chosen}
    return {"trace": trace, "loads": loads, "oracle": highest_load_of_oracle(setting, times_s)}


def search_overload(setting: Setting) -> dict[str, Any]:
    """Return what overload does to each contender."""
    chosen = [item for item in contenders(setting, 1.0) if item.name in OVERLOADED]
    return {"overload": {item.name: overload(setting, item).document() for item in chosen}}


def _least_cpu_s(setting: Setting, cell: dict[str, Any]) -> float:
    """Return a bound of CPU-seconds per on-time correct answer at 1 point below what the objective accuracy gave."""
    figures = cell["policies"][OURS_NAME]
    wanted = max(float(figures["expected_accuracy"]) - ACCURACY_LOSS, 0.0)
    least_s = least_seconds(setting.fleet(), wanted)
    return least_s / max(wanted, 1e-9)


def _spread(jobs: list[Job], processes: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    found = []
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(run, *arguments) for run, arguments in jobs]
        for count, done in enumerate(as_completed(waiting), 1):
            found.append(done.result())
            say(f"simulated: {count} of {len(jobs)} done")
    return found
