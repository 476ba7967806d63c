"""How long a routing decision takes: the situation of a free lane, and what it runs next.

``python -m loadtests.decision`` times ``Desk.situation`` and ``choose_run`` together, as a lane calls them, over many
seeded queues of 1,000 requests for a model of 16 variants, from nearly idle to hopeless. Times are CPU time of the
thread, so that a busy machine disturbs them little, and every decision is timed once, the first of its kind too.

``alike`` requests all ask the same; ``mixed`` ones have floors, pins and several rows; ``tight`` ones ask the same, and
the first of them has hardly any time left, as where more comes than can be served. In ``learning`` the predictions
have changed since the last decision, so that the ladders of candidates are made anew; a gateway does that when a
variant's correction has moved by two percent.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.record import describe_run
from service.domain.policy_file import ModelPolicy
from service.policy.costs import Costs
from service.policy.deadline_queue import DeadlineQueue
from service.policy.desk import Desk, Standing
from service.policy.scheduling import choose_run
from service.policy.situation import Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIANTS: Final = tuple(f"variant-{number:02}" for number in range(16))
_SLOWEST_S: Final = 0.030
_CHEAPER: Final = 0.8
_MOST_ROWS: Final = 16
_LANES: Final = 2
_QUEUES: Final = 200
_BUDGETS_S: Final = (0.3, 20.0)
"""Budgets of the tightest and of the easiest queue; 1,000 requests are 0.5 s to 15 s of work for two lanes."""

_POLICY: Final = ModelPolicy(exploration_share=0.0)

_FLOORS: Final = (VARIANTS, VARIANTS[:12], VARIANTS[:6], VARIANTS[4:5])

SCENES: Final = ("alike", "alike, learning", "mixed", "mixed, learning", "tight", "tight, learning")


@dataclass(slots=True, eq=False)
class Asker:
    """One queued request."""

    model: Model
    waiting: Waiting
    fastest_s: float
    criticality: int
    order: tuple[bool, int, float, int] = (False, 0, 0.0, 0)
    is_queued: bool = False


@dataclass(slots=True, eq=False)
class Model:
    """A model as the desk sees it; ``costs_now`` are its predictions."""

    costs_now: Costs
    policy: ModelPolicy = _POLICY
    max_rows: int = _MOST_ROWS
    standing: Standing = field(default_factory=Standing)
    queue: DeadlineQueue[Asker] = field(default_factory=DeadlineQueue)

    def costs(self, now_s: float) -> Costs:
        """Return the predictions."""
        del now_s
        return self.costs_now

    calm_costs = costs


def make_costs() -> Costs:
    """Return the costs of 16 variants, each a fifth cheaper than the one before; sharing a run saves a little."""
    tables = {
        name: (0.0, *(_SLOWEST_S * _CHEAPER**place * rows**0.97 for rows in range(1, _MOST_ROWS + 1)))
        for place, name in enumerate(VARIANTS)
    }
    accuracy = {name: 0.92 - 0.01 * place for place, name in enumerate(VARIANTS)}
    return Costs(tables, dict.fromkeys(VARIANTS, 1.0), accuracy)


def make_desk(queued: int, chance: random.Random, kind: str) -> tuple[Desk[Model], Model]:
    """Return a desk with one model's queue: arrivals spread over half a budget, or all of it, one in ten critical."""
    desk: Desk[Model] = Desk(_LANES)
    model, low, high = Model(make_costs()), *_BUDGETS_S
    budget_s = low * (high / low) ** chance.random()
    is_mixed, least = kind == "mixed", 0.0 if kind == "tight" else 0.5
    for _ in range(queued):
        candidates = chance.choice(_FLOORS) if is_mixed else VARIANTS
        rows = chance.choice((1, 1, 1, 4)) if is_mixed else 1
        due_s = budget_s * chance.uniform(least, 1.0)
        criticality = 0 if chance.random() < 0.1 else 1  # noqa: PLR2004 - a tenth
        model.standing.arrived(due_s - budget_s, due_s)
        waiting = Waiting(due_s, due_s + 60.0, rows, candidates, None, criticality=criticality)
        desk.push(Asker(model, waiting, model.costs_now.fastest_s(waiting), criticality), 0.0)
    desk.lanes[1].is_busy, desk.lanes[1].free_s = True, chance.uniform(0.0, _SLOWEST_S)
    desk.next_model(0.0)
    return desk, model


def time_decisions(scene: str, queued: int, decisions: int, seed: int) -> Iterator[float]:
    """Yield the CPU seconds of each decision."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable mix, no secret
    kind, _, learning = scene.partition(", ")
    for _ in range(_QUEUES):
        desk, model = make_desk(queued, chance, kind)
        lane = desk.lanes[0]
        for turn in range(decisions // _QUEUES):
            now_s = turn * 1e-4
            if learning:
                model.costs_now = Costs(model.costs_now.tables, model.costs_now.ratios, model.costs_now.accuracy)
            start_s = time.thread_time()
            choose_run(model.queue.waiting(), desk.situation(model, lane, now_s))
            yield time.thread_time() - start_s


def measure(queued: int, decisions: int, seed: int) -> list[dict[str, Any]]:
    """Return a row of figures for every scene, in microseconds of CPU time."""
    rows = []
    for scene in SCENES:
        times_us = np.array(list(time_decisions(scene, queued, decisions, seed))) * 1e6  # (decisions,)
        p50, p99 = np.percentile(times_us, (50, 99))
        rows.append({"scene": scene, "p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)})
    return rows


def main() -> int:
    """Measure, print the table, and write the JSON where one is asked for."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.decision", description=__doc__.splitlines()[0])
    parser.add_argument("--queued", type=int, default=1000)
    parser.add_argument("--decisions", type=int, default=20_000, help="of each scene")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="for instance loadtests/results/decision.json")
    parsed = parser.parse_args()
    rows = measure(parsed.queued, parsed.decisions, parsed.seed)
    table = Table(title=f"{len(VARIANTS)} variants, {parsed.queued:,} queued requests, {_LANES} lanes; CPU time")
    for column in ("requests", "p50 us", "p99 us"):
        table.add_column(column, justify="left" if column == "requests" else "right")
    for row in rows:
        table.add_row(row["scene"], f"{row['p50_us']:.1f}", f"{row['p99_us']:.1f}")
    Console(width=100).print(table)
    if parsed.output:
        document = {
            **describe_run("python -m loadtests.decision", sys.argv[1:]),
            "variants": len(VARIANTS),
            "queued": parsed.queued,
            "decisions": parsed.decisions,
            "results": rows,
        }
        parsed.output.parent.mkdir(parents=True, exist_ok=True)
        parsed.output.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
