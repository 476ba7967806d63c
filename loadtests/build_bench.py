"""The build step against its bars: ``python -m loadtests.build_bench``, or ``make bench-build``.

Parts, in this order: ``build`` what is not built yet, ``measure`` again what was built while the machine was busy (not
among those that run by default), ``accuracy`` on fresh rows where pictures can be painted, ``saturation`` of int8 files
by emulation, and ``latency``, where all variants of a model are timed side by side. Results are kept by part and model
as soon as they are there: a later run with ``--part`` replaces its own part alone, and what was found of an older build
of a model is not used. ``--part measure latency`` takes a few minutes and wants a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from loadtests.building import page
from loadtests.building.fresh import PAINTED, answer_fresh
from loadtests.building.kept import read_results, write_results
from loadtests.building.picture import draw
from loadtests.building.saturating import emulate
from loadtests.building.subjects import (
    DOWNLOADS,
    RECIPES,
    BenchError,
    Subject,
    build,
    facts_of,
    find_subjects,
    measure_again,
    test_rows,
)
from loadtests.building.timing import time_model
from loadtests.marked_page import MarksMissing
from loadtests.record import describe_run
from variants.errors import BuildError
from variants.manifest import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Tell = Callable[[str], None]

_PROGRAM: Final = "python -m loadtests.build_bench"
_FINDING: Final = ("accuracy", "saturation", "latency")
_PARTS: Final = ("build", "measure", *_FINDING)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts asked for, write results, page and picture; return the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parse(given)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        parts = read_results(parsed.results)
        run_parts(parsed, parts, given, console.print)
        if parsed.plot is not None:
            draw(parts, parsed.plot)
        if parsed.docs is not None:
            page.rewrite(parsed.docs, parts, parsed.plot)
        Console(highlight=False, markup=False).print(page.text(parts), soft_wrap=True)
    except (BenchError, BuildError, ManifestError, MarksMissing, OSError) as error:
        console.print(f"build bench: {error}")
        return 1
    return 0


def run_parts(parsed: argparse.Namespace, parts: dict[str, Any], given: Sequence[str], tell: Tell) -> None:
    """Run each part asked for on every model that is there, and keep its results model by model."""
    if "build" in parsed.part:
        for model in [model for model in parsed.model if model not in find_subjects(parsed.repository, [model])]:
            tell(f"building {model}")
            try:
                build(model, parsed.repository[0])
            except BenchError as error:
                tell(f"{error}; going on without {model}")  # a recipe may need a package that is not there
    if "measure" in parsed.part:
        timed = [model for model in parsed.model if model not in DOWNLOADS]
        for model, subject in find_subjects(parsed.repository, timed).items():
            tell(f"{model}: measuring again")
            measure_again(subject, parsed.work)
    subjects = find_subjects(parsed.repository, parsed.model)
    parts["build"] = parts.get("build", {}) | {model: facts_of(subject) for model, subject in subjects.items()}
    write_results(parsed.results, parts)
    for part in [part for part in _FINDING if part in parsed.part]:
        for model, subject in subjects.items():
            found = _measure(part, subject, parsed.work, tell)
            if found is not None:
                entry = {"build_key": subject.manifest.build_key, "run": _describe(given), "found": found}
                parts[part] = parts.get(part, {}) | {model: entry}
                write_results(parsed.results, parts)


def _measure(part: str, subject: Subject, work: Path, tell: Tell) -> Any:  # noqa: ANN401 - each part has its own form
    """Return what one part finds of one model, ``None`` where it has nothing to look at."""
    if part == "accuracy":
        return answer_fresh(subject, work, tell) if subject.manifest.model == PAINTED else None
    if part == "latency" and subject.manifest.model in DOWNLOADS:
        return None
    rows = test_rows(subject, work)
    return emulate(subject, rows, tell) or None if part == "saturation" else time_model(subject, rows[0], tell)


def _describe(given: Sequence[str]) -> dict[str, Any]:
    return describe_run(_PROGRAM, given) | {"load_average": round(os.getloadavg()[0], 1)}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--part", nargs="+", choices=_PARTS, default=[part for part in _PARTS if part != "measure"],
        help="default: all but measure, in this order",
    )  # fmt: skip
    parser.add_argument("--model", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="default: all")
    parser.add_argument(
        "--repository", type=Path, nargs="+", default=[Path("repository")],
        help="where models are looked for; those that are in none are built into the first",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("repository/.build-bench"), help="where rows are kept")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "build.json")
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--docs", type=Path, help="a page with the bench's marks")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
