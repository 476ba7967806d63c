"""``python -m loadtests.simulator``: compare policies on a trace or an arrival process, at several loads."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.arrivals import gamma_renewal
from loadtests.h2load import LoadError
from loadtests.simulator.comparison import POLICIES, at_load, compare
from loadtests.simulator.fleet import Balancer, Fleet, Machine
from loadtests.simulator.ladder import make_ladder, read_answer_sheet, read_ladder
from loadtests.simulator.workload import make_workload
from loadtests.traces import read_trace
from service.domain.policy_file import ModelPolicy
from variants.manifest import ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadtests.simulator.comparison import Comparison
    from loadtests.simulator.ladder import Ladder

_WIDTH = 120
_EXAMPLE = "full:30:92,quantized:9:91.5,pruned-quantized:5:90,distilled-quantized:2:86"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print it; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        comparisons = _run(options)
    except (LoadError, ManifestError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([item.document() for item in comparisons], indent=2))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = _WIDTH
        for item in comparisons:
            console.print(_table(item))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.simulator", description=__doc__)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, help="folder of a built model's version, with its manifest.json")
    model.add_argument("--ladder", default=_EXAMPLE, help="name:milliseconds:percent, ...; default %(default)s")
    parser.add_argument("--answers", type=Path, help="answer sheet (.npz) for --model")
    parser.add_argument("--trace", type=Path, help="arrivals from a file; else drawn, see --requests and --cv")
    parser.add_argument("--requests", type=int, default=10_000, help="without a trace: how many (default %(default)s)")
    parser.add_argument("--cv", type=float, default=1.0, help="without a trace: variation of the gaps, 1 is Poisson")
    parser.add_argument("--loads", default="0.3,0.5,1,3", help="shares of all lanes that always-full would need")
    parser.add_argument("--policies", default=",".join(POLICIES), help="default %(default)s")
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=2, help="lanes of each gateway")
    parser.add_argument("--balancer", type=Balancer, choices=list(Balancer), default=Balancer.ROUND_ROBIN)
    parser.add_argument("--budget-ms", type=float, default=100.0)
    parser.add_argument("--timeout-ms", type=float, default=60_000.0)
    parser.add_argument("--overhead-us", type=float, default=60.0, help="lane time around each run")
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--margin", type=float, default=0.1, help="added to every prediction, as a share of it")
    parser.add_argument("--exact", action="store_true", help="every run takes its profile's median")
    parser.add_argument("--no-oracle", action="store_true", help="leave out the oracle's bound, which takes longest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser


def _run(options: argparse.Namespace) -> list[Comparison]:
    machine = Machine(per_run_s=options.overhead_us / 1e6, is_exact=options.exact)
    fleet = Fleet((_ladder(options),), options.gateways, options.lanes, options.balancer, machine)
    arrivals = _arrivals(options)
    comparisons = []
    for load in (float(text) for text in options.loads.split(",")):
        workload = make_workload(at_load(arrivals, load, fleet), options.budget_ms / 1e3, options.timeout_ms / 1e3)
        names = options.policies.split(",")
        comparisons.append(compare(workload, fleet, names, load=load, seed=options.seed, bounds=not options.no_oracle))
    return comparisons


def _ladder(options: argparse.Namespace) -> Ladder:
    policy = ModelPolicy(safety_margin_ratio=options.margin, max_batch_size=options.max_batch)
    if options.model:
        answers = read_answer_sheet(options.answers) if options.answers else None
        return read_ladder(options.model, policy, answers)
    figures = {}
    for part in options.ladder.split(","):
        name, milliseconds, percent = part.split(":")
        figures[name] = (float(milliseconds) / 1e3, float(percent) / 1e2)
    return make_ladder("model", figures, policy=policy)


def _arrivals(options: argparse.Namespace) -> NDArray[np.float64]:
    if options.trace:
        return read_trace(options.trace)
    return gamma_renewal(1.0, options.cv, float(options.requests), np.random.default_rng(options.seed))


def _table(comparison: Comparison) -> Table:
    bound = (
        "" if comparison.bound is None else f"; no schedule exceeds {100 * comparison.bound:.2f} % effective accuracy"
    )
    table = Table(title=f"load {comparison.load:g}{bound}")
    table.add_column("policy")
    for name in ("on time %", "eff. acc. %", "expected %", "mean acc. %", "shed", "expired", "CPU ms/good", "busy %"):
        table.add_column(name, justify="right")
    for item in comparison.summaries:
        table.add_row(
            item.policy,
            f"{100 * item.attainment:.2f}",
            f"{100 * item.effective_accuracy:.2f}",
            f"{100 * item.expected_accuracy:.2f}",
            f"{100 * item.mean_accuracy:.2f}",
            str(item.shed),
            str(item.expired),
            f"{1e3 * item.cpu_s_per_good_answer:.2f}",
            f"{100 * item.busy_ratio:.1f}",
        )
    return table
