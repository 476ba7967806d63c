"""The serving engine against its bars: ``python -m loadtests.serving_bench``, or ``make bench-serving``.

Parts, in this order: the answer sheet of the model, a calibration of the simulator, the simulated comparison of
policies, the same where a run always takes its median time, real gateways on the same arrivals, a real gateway with and
without cascades, predicted against actual latency, and the overhead on an idle machine. Each part's results are written
as soon as it is done, so that an interrupted run goes on with ``--resume``. All traffic stays on loopback, and all that
is started is ended.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from loadtests.gateway import split_cores
from loadtests.h2load import LoadError
from loadtests.marked_page import MarksMissing
from loadtests.record import describe_run
from loadtests.serving import pictures, report
from loadtests.serving.calibration import read_calibration, run_calibration
from loadtests.serving.cascading import run_cascades
from loadtests.serving.idle import run_idle
from loadtests.serving.prediction import run_reliability
from loadtests.serving.real import run_real
from loadtests.serving.results import PARTS, read_results, write_results
from loadtests.serving.setting import LOADS, REAL_LOADS, Calibration, Setting
from loadtests.serving.sheet import run_sheet
from loadtests.serving.simulated import run_hindsight, run_simulated
from service.interrupts import heard_as_interrupts
from variants.manifest import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Part = Callable[[Setting, Callable[[str], None]], dict[str, Any]]

_PROGRAM: Final = "python -m loadtests.serving_bench"
_INTERRUPTED: Final = 130
_RUN: Final[Mapping[str, Part]] = {
    "sheet": run_sheet,
    "calibrate": run_calibration,
    "simulated": run_simulated,
    "hindsight": run_hindsight,
    "real": run_real,
    "cascades": run_cascades,
    "reliability": run_reliability,
    "idle": run_idle,
}

_SIMULATED: Final = ("simulated", "hindsight")
_NARROWED: Final = ("real", "reliability")


@heard_as_interrupts()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts asked for, write results, page and pictures; return the exit status."""
    parsed = parse(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        parts = read_results(parsed.results)
        if not parsed.report_only:
            run_parts(parsed, parts, console)
        Console(highlight=False, markup=False).print(report.text(parts), soft_wrap=True)
        shown = pictures.draw_all(parts, parsed.images) if parsed.images else []
        if parsed.docs:
            report.rewrite(parsed.docs, parts, shown)
    except (LoadError, ManifestError, MarksMissing, OSError, ValueError) as error:
        console.print(f"serving_bench: {error}", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; every gateway is ended; finished parts are kept, --resume goes on")
        return _INTERRUPTED
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="default: all, in this order")
    parser.add_argument("--repository", type=Path, default=Path("repository"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--inputs", type=Path, metavar="FILE", help=".npz with 'inputs' and 'labels'; default: recipe")
    parser.add_argument("--trace", type=Path, nargs="+", default=[], metavar="FILE", help="default: fitted stand-ins")
    parser.add_argument(
        "--policy",
        nargs="+",
        default=[],
        metavar="[LOAD:]FILE",
        help="tuned policy files; with a load: for that one alone",
    )
    parser.add_argument("--budget-ms", type=float, help="default: 10/3 of the full variant's median")
    parser.add_argument(
        "--real-variants",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"variants that take part in {' and '.join(_NARROWED)}; default: all. Where the first is slow, load 1 is "
        "a rate that the generator can keep",
    )
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS), help="simulated")
    parser.add_argument("--real-loads", type=float, nargs="+", default=list(REAL_LOADS))
    parser.add_argument("--lanes", type=int, default=2, help="simulated; a real gateway has one")
    parser.add_argument("--requests", type=int, default=4000, help="of each trace, simulated")
    parser.add_argument("--real-s", type=float, default=6.0, help="length of a run on a real gateway")
    parser.add_argument("--real-rounds", type=int, default=3, help="of every run on a real gateway; the median counts")
    parser.add_argument("--processes", type=int, default=2, help="for the simulations")
    parser.add_argument(
        "--uncalibrated",
        action="store_true",
        help="simulate policies without the event loop's time: of the calibration only compute times count",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("loadtests/results/raw"), help="for intermediate files")
    parser.add_argument("--results", type=Path, default=Path("loadtests/results/serving.json"))
    parser.add_argument("--images", type=Path, help="folder for the pictures")
    parser.add_argument("--docs", type=Path, help="page whose block between the benchmark's marks is rewritten")
    parser.add_argument(
        "--resume", action="store_true", help="leave out parts that the results hold for these arguments"
    )
    parser.add_argument("--report-only", action="store_true", help="run nothing; show and write from the results")
    return parser.parse_args(arguments)


def setting_of(parsed: argparse.Namespace) -> Setting:
    """Return the setting that the command line describes, not yet calibrated."""
    policies: dict[float | None, Path] = {}
    for text in parsed.policy:
        load, mark, path = text.rpartition(":")
        try:
            policies[float(load) if mark else None] = Path(path)
        except ValueError:
            raise LoadError(f"--policy {text}: '{load}' is no load; give LOAD:FILE or FILE") from None
    return Setting(
        repository=parsed.repository,
        model=parsed.model,
        work=parsed.work,
        inputs=parsed.inputs,
        traces=tuple(parsed.trace),
        policies=policies,
        budget_s=None if parsed.budget_ms is None else parsed.budget_ms / 1e3,
        loads=tuple(parsed.loads),
        real_loads=tuple(parsed.real_loads),
        lanes=parsed.lanes,
        requests=parsed.requests,
        real_s=parsed.real_s,
        rounds=parsed.real_rounds,
        seed=parsed.seed,
        processes=parsed.processes,
    )


def run_parts(parsed: argparse.Namespace, parts: dict[str, Any], console: Console) -> None:
    """Run the parts asked for in order, and keep each as soon as it is done."""
    setting = setting_of(parsed)
    key = _key(setting)
    for name in [name for name, part in parts.items() if part["key"] != key]:
        console.print(f"{name}: left out from now on, its results are of another build, budget or seed")
        del parts[name]
    if split_cores()[1] == {split_cores()[0]}:
        console.print(
            "this machine has one core: generator and gateway share it, and real figures are not to be trusted"
        )
    for name in PARTS:
        if name not in parsed.part:
            continue
        if parsed.resume and parts.get(name, {}).get("key") == key:
            console.print(f"{name}: kept from before")
            continue
        start_s = time.monotonic()
        chosen = calibrated(setting, parts, key)
        if parsed.uncalibrated and name in _SIMULATED:
            chosen = replace(chosen, calibration=replace(chosen.calibration, machine=Calibration().machine))
        if name in _NARROWED:
            chosen = replace(chosen, variants=tuple(parsed.real_variants))
        figures = _RUN[name](chosen, lambda text: console.print(text, markup=False))
        took_s = time.monotonic() - start_s
        console.print(f"{name}: took {took_s:.0f} s")
        parts[name] = {**describe_run(_PROGRAM, sys.argv[1:]), "key": key, "took_s": took_s, **figures}
        write_results(parsed.results, parts)


def calibrated(setting: Setting, parts: Mapping[str, Any], key: str) -> Setting:
    """Return the setting with what the calibration in the results has measured, if it was made for this model."""
    found = parts.get("calibrate")
    if found is None or found["key"] != key:
        return setting
    return replace(setting, calibration=read_calibration(found, setting.ladder().variants))


def _key(setting: Setting) -> str:
    """Return what the parts of one set of results have in common: the model's build and the budget."""
    _, manifest = setting.manifest()
    digest = {item.name: item.sha256[:8] for item in manifest.published}
    return json.dumps([manifest.model, digest, setting.budget_s, setting.seed], sort_keys=True)


if __name__ == "__main__":
    sys.exit(main())
