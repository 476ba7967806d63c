"""``python -m loadtests.scaling``: replica-hours of scaling alone and of scaling with smaller variants."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table

from loadtests.record import describe_run
from loadtests.scaling.contest import TRACES, Setting, contest, document, responses
from loadtests.scaling.day import Delays
from loadtests.scaling.picture import draw
from loadtests.simulator.ladder import make_ladder, read_ladder
from variants.manifest import ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.simulator.ladder import Ladder

_PROGRAM = "python -m loadtests.scaling"
_EXAMPLE = "full:30:92,quantized:9:91.5,pruned-quantized:5:90,distilled-quantized:2:86"
_WIDTH = 150


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate the days and print them; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        figures = _run(options)
    except (ManifestError, ValueError, KeyError, OSError, yaml.YAMLError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2
    if options.results:
        facts = describe_run(_PROGRAM, sys.argv[1:] if arguments is None else arguments)
        options.results.write_text(json.dumps(facts | figures, indent=1) + "\n", encoding="utf-8")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    for trace, rows in figures["traces"].items():
        console.print(_table(trace, rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, help="folder of a built model's version")
    model.add_argument("--ladder", default=_EXAMPLE, help="name:milliseconds:percent, ...; default %(default)s")
    parser.add_argument(
        "--values",
        type=Path,
        default=Path("deploy/helm/tiergate/values.yaml"),
        help="values of the chart whose autoscaling rules are simulated (default: %(default)s)",
    )
    parser.add_argument("--budget-ms", type=float, default=100.0)
    parser.add_argument("--replicas", type=int, nargs=2, default=(2, 200), metavar=("LEAST", "MOST"))
    parser.add_argument("--start-s", type=float, default=60.0, help="until a new replica serves (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=6000, help="simulated for each rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, metavar="FILE.json")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the days")
    return parser


def _run(options: argparse.Namespace) -> dict[str, Any]:
    values = yaml.safe_load(options.values.read_text(encoding="utf-8"))
    setting = Setting(
        ladder=read_ladder(options.model) if options.model else _ladder(options.ladder),
        budget_s=options.budget_ms / 1e3,
        autoscaling=values["autoscaling"],
        delays=Delays(start_s=options.start_s),
        least=options.replicas[0],
        most=options.replicas[1],
        requests=options.requests,
        seed=options.seed,
    )
    found = responses(setting)
    days = {trace: contest(setting, found, trace) for trace in TRACES}
    if options.picture:
        options.picture.write_text(draw(days), encoding="utf-8")
    return {
        "ladder": {item.name: [item.profile.at(1).p50_s, item.accuracy] for item in setting.ladder.variants},
        "budget_s": setting.budget_s,
        "start_s": setting.delays.start_s,
        "traces": {trace: document(entries) for trace, entries in days.items()},
    }


def _ladder(text: str) -> Ladder:
    figures = {}
    for part in text.split(","):
        name, milliseconds, percent = part.split(":")
        figures[name] = (float(milliseconds) / 1e3, float(percent) / 100.0)
    return make_ladder("example", figures)


def _table(trace: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=trace)
    for name in ("way", "targets", "on time %", "worst minute %", "eff. acc. %", "replica-hours", "most", "saving"):
        table.add_column(name, justify="left" if name in ("way", "targets") else "right")
    for row in rows:
        saving = row.get("saving")
        table.add_row(
            row["name"],
            ", ".join(f"{name} {target:g}" for name, target in row["targets"].items()),
            f"{100 * row['attainment']:.2f}",
            f"{100 * row['worst_minute']:.1f}",
            f"{100 * row['effective_accuracy']:.2f}",
            f"{row['replica_hours']:.0f}",
            str(row["most_replicas"]),
            "" if saving is None else f"{saving:.2f}x" if row["is_equal"] else f"> {saving:.2f}x",
        )
    return table
