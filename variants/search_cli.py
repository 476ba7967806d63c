"""``tiergate search``."""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from variants.cli import INTERRUPTED, parse_seed, positive, refuse, show, whole

if TYPE_CHECKING:
    from variants.effort import Effort
    from variants.search.run import SearchResult

PICTURES: Final = (".png", ".svg")


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``search``; it sets ``run``, which takes the arguments and returns a code."""
    search = subparsers.add_parser(
        "search", help="find a ladder of tiers of a recipe's network: depth, widths and precision; then build it"
    )
    search.add_argument("recipe", metavar="RECIPE", help="a bundled recipe that trains a network, or a .py file of one")
    search.add_argument(
        "--output", metavar="REPOSITORY", type=Path, default=Path("repository"), help="default: %(default)s"
    )
    search.add_argument("--seed", metavar="N", type=parse_seed, default=0, help="default: 0")
    search.add_argument(
        "--trials",
        metavar="N",
        type=whole,
        default=70,
        help="networks to score, over all attempts; default: %(default)s",
    )
    search.add_argument(
        "--minutes", metavar="M", type=positive, default=20.0, help="CPU time to score them in; default: %(default)s"
    )
    search.add_argument(
        "--tiers", metavar="N", type=whole, default=5, help="tiers to choose beside full; default: %(default)s"
    )
    search.add_argument("--force", action="store_true", help="forget earlier searches of the recipe with this seed")
    search.add_argument(
        "--plot", metavar="FILE", type=_picture, help="draw all candidates and the ladder as .png or .svg"
    )
    search.add_argument("--json", action="store_true", help="print the manifest instead of tables; no progress")
    search.add_argument("--verbose", action="store_true", help="when a step fails, print also where it failed")
    search.set_defaults(run=run_search)


def run_search(arguments: argparse.Namespace) -> int:
    """Search, build, and print the table or the manifest; return the exit code."""
    from variants.errors import BuildError

    try:
        return _search(arguments)
    except BuildError as error:
        if arguments.verbose:
            traceback.print_exception(error)
        return refuse(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("tiergate search: interrupted; run the same command again to go on where it stopped\n")
        return INTERRUPTED


def _search(arguments: argparse.Namespace) -> int:
    from variants.effort import watch_effort
    from variants.progress import choose_progress
    from variants.sources.recipes import load_recipe

    recipe = load_recipe(arguments.recipe)
    from variants.search.run import SearchOptions, search_model  # after the check that torch is there

    options = SearchOptions(
        seed=arguments.seed,
        trials=arguments.trials,
        minutes=arguments.minutes,
        tiers=arguments.tiers,
        force=arguments.force,
    )
    with watch_effort() as effort:
        result = search_model(recipe, arguments.output, options, choose_progress(sys.stderr, quiet=arguments.json))
    show(result.build.manifest, as_json=arguments.json)
    if not arguments.json:
        print(_summary(result, effort))
    return 0 if arguments.plot is None else _draw(result, arguments.plot)


def _draw(result: SearchResult, file: Path) -> int:
    """Write the picture; return the exit code. What was searched for is published by then, whatever becomes of it."""
    from variants.publication import write_whole
    from variants.search.picture import draw

    try:
        write_whole(file, draw(result, file.suffix[1:]))
    except OSError as error:
        return refuse(
            f"cannot write {file}: {error.strerror}; the tiers are in {result.build.folder}, and the same command with "
            "another --plot draws them at once"
        )
    return 0


def _summary(result: SearchResult, effort: Effort) -> str:
    """Return what the search did, for people."""
    check = result.check
    told = "published in" if result.build.is_new else "already built:"
    return (
        f"{result.asked} networks scored in both precisions in {result.scoring_cpu_s / 60:.1f} CPU-minutes; latency "
        f"predicted {check.mean:.1%} off on average, {check.most:.1%} at most, on {check.files} timed files held out\n"
        f"this run: {effort}\n"
        f"{told} {result.build.folder}"
    )


def _picture(text: str) -> Path:
    if not text.endswith(PICTURES):
        raise argparse.ArgumentTypeError(f"'{text}' does not end in {' or '.join(PICTURES)}")
    return Path(text)
