"""``python -m loadtests.tuner.bars``: measure what the tuner promises, and write it down.

Brute force: a grid over the thresholds that matter, every candidate simulated on the whole tuning part, against the
tuner's own search of the same part. Unseen workloads: eight kinds of arrivals, tuned on one draw and judged on
another; what the tuner saw must be what the other draw gives. Transfer: tuned on one kind of traffic and judged on
another, against tuned on that one. Gain: what the judge says on each of the eight.

The ladder has six variants with the shape of a real one and is an example, unless a built model is named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console

from loadtests import arrivals
from loadtests.fitted import FITS, draw_stand_in
from loadtests.record import describe_run
from loadtests.simulator.comparison import at_load
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.ladder import Ladder, read_ladder
from loadtests.traces import read_trace
from loadtests.tuner.judge import judge
from loadtests.tuner.notebook import Notebook
from loadtests.tuner.question import Limits, Question, ask
from loadtests.tuner.score import mean_of
from loadtests.tuner.search import DEFAULT_BUDGET
from loadtests.tuner.space import Candidate, Space, make_space
from loadtests.tuner.trials import Trials
from loadtests.tuner.tune import Effort, Tuned, tune
from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell, Profile, Variant
from service.interrupts import heard_as_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    Times = NDArray[np.float64]

RESULTS: Final = Path(__file__).parents[1] / "results" / "tuner.json"
LANES: Final = 2
_DURATION_S: Final = 1000.0
_GRID: Final = {
    "burst_price": 2,
    "shortage_weight": 2,
    "safety_quantile": 1,
    "safety_margin_ratio": 1,
    "max_batch_size": 1,
}
"""Thresholds of the grid, and every how many of their values it takes."""

_EXAMPLE: Final = {
    "full": (0.030, 0.920),
    "quantized": (0.009, 0.915),
    "pruned": (0.016, 0.910),
    "pruned-quantized": (0.005, 0.900),
    "distilled": (0.004, 0.870),
    "distilled-quantized": (0.002, 0.860),
}
_TRANSFERS: Final = (("code", "conv"), ("conv", "code"), ("mmpp", "code"), ("gamma", "mmpp"))
_BATCHES: Final = (1, 2, 4, 8)
_BUDGET_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of arrivals: drawn from a seed at a mean rate of about 4 a second, and played at a load."""

    name: str
    draw: Callable[[int], Times]
    load: float
    floor: float
    is_bursty: bool


@heard_as_interrupts()
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; return the exit code."""
    options = _parser().parse_args(arguments)
    began_s = time.monotonic()
    ladder = _ladder(options.model, options.budget_ms / 1e3)
    named = options.kinds.split(",") if options.kinds else None
    kinds = [
        kind for kind in _kinds(options.requests, options.code, options.conv) if named is None or kind.name in named
    ]
    effort = Effort(DEFAULT_BUDGET, options.processes)
    tunes: dict[str, tuple[Question, Tuned]] = {}
    for kind in kinds:
        question = _question(ladder, kind)
        tunes[kind.name] = (question, tune(question, effort))
        _say(f"{kind.name}: {tunes[kind.name][1].judgement.verdict.value}")
    document = {
        **describe_run("python -m loadtests.tuner.bars", sys.argv[1:] if arguments is None else arguments),
        "load_average": os.getloadavg()[0],
        "ladder": options.model.name if options.model else "example",
        "variants": len(ladder.variants),
        "unseen": [_unseen(kind, *tunes[kind.name]) for kind in kinds],
        "transfer": [_transfer(tunes, *pair) for pair in _TRANSFERS if set(pair) <= set(tunes)],
        "brute_force": [],
    }
    _keep(document, options.output, began_s)  # the grid takes longest, and may be interrupted
    for name in filter(None, options.brute.split(",")):
        document["brute_force"].append({"workload": name, **_brute(tunes[name], options.processes)})
        _keep(document, options.output, began_s)
    return 0


def _keep(document: dict[str, Any], path: Path, began_s: float) -> None:
    document["wall_s"] = time.monotonic() - began_s
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.tuner.bars", description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a built model's version; default: the example ladder")
    parser.add_argument("--budget-ms", type=float, default=1e3 * _BUDGET_S, help="default: %(default)s")
    parser.add_argument("--code", type=Path, help="trace in place of the stand-in; its halves tune and judge")
    parser.add_argument("--conv", type=Path, help="trace in place of the stand-in; its halves tune and judge")
    parser.add_argument("--requests", type=int, default=4000, help="of each part (default: %(default)s)")
    parser.add_argument(
        "--brute", default="code,gamma", help="workloads whose grid is tried, '' for none (default: %(default)s)"
    )
    parser.add_argument("--kinds", help="only these kinds of arrivals; default: all")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


def example_questions(requests: int, names: Collection[str]) -> dict[str, Question]:
    """Return the questions of these kinds of arrivals for the example ladder."""
    ladder = _ladder(None, _BUDGET_S)
    return {kind.name: _question(ladder, kind) for kind in _kinds(requests, None, None) if kind.name in names}


def _kinds(requests: int, code: Path | None, conv: Path | None) -> list[Kind]:
    rate = requests / _DURATION_S

    def rng(seed: int) -> np.random.Generator:
        return np.random.default_rng([seed, 11])

    def of(source: str, path: Path | None) -> Callable[[int], Times]:
        if path is None:
            return lambda seed: draw_stand_in(FITS[source], requests / FITS[source].target.rate_hz, seed)
        times = read_trace(path)
        half = len(times) // 2
        return lambda seed: times[half:] if seed else times[:half]

    def day(seed: int) -> Times:
        return arrivals.follow(arrivals.diurnal(rate, 0.8, _DURATION_S), _DURATION_S, rng(seed))

    def crowd(seed: int) -> Times:
        curve = arrivals.flash_crowd(rate * 0.7, rate * 3.5, 300.0, (20.0, 60.0, 60.0))
        return arrivals.follow(curve, _DURATION_S, rng(seed))

    def stairs(seed: int) -> Times:
        rates = [rate * part for part in (0.5, 1.0, 2.0, 0.5)]
        return arrivals.piecewise([0.0, 250.0, 500.0, 750.0], rates, _DURATION_S, rng(seed))

    def states(seed: int) -> Times:
        return arrivals.mmpp([rate * 0.4, rate * 4.0], [30.0, 6.0], _DURATION_S, rng(seed))

    return [
        Kind("poisson", lambda seed: arrivals.poisson(rate, _DURATION_S, rng(seed)), 1.0, 0.99, is_bursty=False),
        Kind("conv", of("conv", conv), 1.0, 0.99, is_bursty=False),
        Kind("diurnal", day, 1.0, 0.99, is_bursty=False),
        Kind("step", stairs, 1.0, 0.99, is_bursty=False),
        Kind(
            "gamma", lambda seed: arrivals.gamma_renewal(rate, 4.0, _DURATION_S, rng(seed)), 2.0, 0.95, is_bursty=True
        ),
        Kind("mmpp", states, 2.0, 0.95, is_bursty=True),
        Kind("flash crowd", crowd, 2.0, 0.95, is_bursty=True),
        Kind("code", of("code", code), 2.0, 0.90, is_bursty=True),
    ]


def _ladder(folder: Path | None, budget_s: float) -> Ladder:
    policy = ModelPolicy(default_budget_ms=1e3 * budget_s)
    if folder is not None:
        return read_ladder(folder, policy)
    variants = []
    for name, (seconds, accuracy) in sorted(_EXAMPLE.items(), key=lambda item: -item[1][1]):
        times = [(rows, seconds * rows**0.9) for rows in _BATCHES]
        cells = tuple(LatencyCell(rows, time_s, 1.2 * time_s, 1.5 * time_s) for rows, time_s in times)
        variants.append(Variant(name, name, accuracy, Profile(cells), 0, 0, ""))
    return Ladder("example", tuple(variants), _BATCHES[-1], policy)


def _question(ladder: Ladder, kind: Kind) -> Question:
    fleet, budget_s = Fleet((ladder,), 1, LANES), ladder.policy.default_budget_s
    parts = [ask(at_load(kind.draw(seed), kind.load, fleet), ((budget_s, 1.0),), 5.0, seed) for seed in (0, 1)]
    return Question(ladder, (parts[0],), (parts[1],), Limits(attainment=kind.floor), LANES)


def _unseen(kind: Kind, question: Question, tuned: Tuned) -> dict[str, Any]:
    """Return one row: what the search saw of its candidate, and what the other draw gives."""
    judgement, promised = tuned.judgement, mean_of(tuned.promised)
    found = mean_of(judgement.tuned)
    return {
        "workload": kind.name,
        "is_bursty": kind.is_bursty,
        "load": kind.load,
        "floor": question.limits.attainment,
        "requests": found.offered,
        "verdict": judgement.verdict.value,
        "predicted_attainment": promised.attainment,
        "attainment": found.attainment,
        "off_points": 100 * (found.attainment - promised.attainment),
        "base_attainment": mean_of(judgement.base).attainment,
        "effective_accuracy": found.accuracy,
        "base_effective_accuracy": mean_of(judgement.base).accuracy,
        "gain_points": [100 * item for item in (judgement.gain.value, judgement.gain.low, judgement.gain.high)],
        "changes": {name: pair[1] for name, pair in tuned.changes.items()},
        "wall_s": tuned.wall_s,
        "simulations": tuned.tried,
        "runs": tuned.spent,
    }


def _transfer(tunes: dict[str, tuple[Question, Tuned]], source: str, target: str) -> dict[str, Any]:
    """Judge what was tuned on one kind of traffic on another, beside what was tuned there."""
    question, own = tunes[target]
    found = judge(question, own.candidate, tunes[source][1].candidate)
    return {
        "tuned_on": source,
        "judged_on": target,
        "accuracy_points": 100 * (mean_of(found.tuned).accuracy - mean_of(found.base).accuracy),
        "attainment_points": 100 * (mean_of(found.tuned).attainment - mean_of(found.base).attainment),
    }


def _brute(tune_: tuple[Question, Tuned], processes: int) -> dict[str, Any]:
    """Try the whole grid on the tuning part; return both objectives, and what each cost."""
    question, tuned = tune_
    space = make_space(question)
    grid = _grid(space)
    with Trials(question, space, Notebook(question.digest()), processes=processes) as trials:
        scores = trials.run(1, [space.start, *grid])
        cost = trials.spent
        own = trials.run(1, [_candidate_of(space, tuned.candidate)])[0]
    best, base = max(scores), scores[0]
    room = best.objective - base.objective
    _say(f"brute force: {best.objective:.5f}, tuner {own.objective:.5f}")
    return {
        "requests": len(question.tuning[0]),
        "candidates": len(grid),
        "base": {"kept": base.kept, "objective": base.objective},
        "brute_force": {"kept": best.kept, "objective": best.objective},
        "tuned": {"kept": own.kept, "objective": own.objective},
        "of_brute_force": own.objective / best.objective,
        "of_its_gain": (own.objective - base.objective) / room if room > 0.0 and base.kept == best.kept else None,
        "cost_ratio": tuned.spent / cost,
    }


def _grid(space: Space) -> list[Candidate]:
    places = []
    for item, start in zip(space.dimensions, space.start, strict=True):
        every = _GRID.get(item.field)
        places.append(range(0, len(item.values), every) if every else [start])
    return list(product(*places))


def _candidate_of(space: Space, policy: ModelPolicy) -> Candidate:
    return tuple(item.values.index(getattr(policy, item.field)) for item in space.dimensions)


def _say(words: str) -> None:
    Console(stderr=True, highlight=False).print(words, markup=False)


if __name__ == "__main__":
    sys.exit(main())
