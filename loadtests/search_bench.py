"""``python -m loadtests.search_bench``: search a recipe, and write what was predicted and measured into a page.

    python -m loadtests.search_bench --docs docs/search.md --plot docs/images/search.svg

The search is ``tiergate search``; here its ladder becomes a table, with the bars that it is held against: at least five
tiers, at most 30 CPU-minutes, and every tier's p50 predicted within a tenth of what the build measured.

What was searched is kept in ``loadtests/results/search.json``. With ``--judge`` nothing is searched: the same ladder is
held against what its newest version says, which ``tiergate measure`` may have measured anew since.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests.marked_page import Marks, image, table
from variants.errors import BuildError
from variants.figures import cell
from variants.manifest import ManifestError
from variants.progress import choose_progress
from variants.search.keeping import keep, recall
from variants.search.picture import draw
from variants.search.run import SearchOptions, search_model
from variants.sources.recipes import load_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from variants.manifest import VariantManifest
    from variants.search.run import SearchResult

MARKS: Final = Marks("bench-search")
MICRO: Final = 1e-6
KIB: Final = 1024
MOST_OFF: Final = 0.10
MOST_CPU_MINUTES: Final = 30.0
FEWEST_TIERS: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, write the page and the picture; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.search_bench")
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--output", type=Path, default=Path("repository"))
    parser.add_argument("--trials", type=int, default=SearchOptions().trials)
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "search.json")
    parser.add_argument("--judge", action="store_true", help="search nothing; judge the ladder that was found last")
    parsed = parser.parse_args(arguments)
    try:
        result = recall(parsed.results, parsed.output) if parsed.judge else _search(parsed)
    except (BuildError, ManifestError, OSError) as error:
        sys.stderr.write(f"search bench: {error}\n")
        return 1
    write_page(result, parsed.docs, parsed.plot)
    return 0


def _search(parsed: argparse.Namespace) -> SearchResult:
    options = SearchOptions(trials=parsed.trials)
    result = search_model(load_recipe(parsed.recipe), parsed.output, options, choose_progress(sys.stderr, quiet=False))
    if not result.build.is_new:
        raise BuildError(
            f"{result.build.folder} was searched before; --judge judges it, another --output searches anew"
        )
    keep(result, parsed.results)
    return result


def write_page(result: SearchResult, docs: Path, plot: Path) -> None:
    """Draw the picture, and put it and the tables between the marks of ``docs``."""
    plot.write_bytes(draw(result, plot.suffix[1:]))
    words = "candidates where they were predicted, and the ladder where it was measured"
    MARKS.rewrite(
        docs, [image(docs, plot, words), "\n".join(_ladder(result)), "\n".join(_bars(result)), _origin(result)]
    )


def errors(result: SearchResult) -> list[float]:
    """Return how far each tier's predicted p50 was off the measured one, as ratios of that."""
    manifest = result.build.manifest
    return [rung.found.p50_s / cell(manifest.variant(rung.name), 1).p50_s - 1.0 for rung in result.ladder]


def _ladder(result: SearchResult) -> list[str]:
    manifest = result.build.manifest
    rows = [_row("full", manifest.variant("full"), "-", "-", "-")]
    for rung, off in zip(result.ladder, errors(result), strict=True):
        chosen = next(one for one in result.candidates if one.trial == rung.found.trial)
        what = f"{rung.found.network}, {'int8' if rung.is_quantized else 'float32'}"
        predicted, scored = f"{rung.found.p50_s / MICRO:.0f} us", f"{rung.found.accuracy:.1%} of {chosen.rows}"
        rows.append(_row(what, manifest.variant(rung.name), predicted, f"{off:+.1%}", scored))
    header = [
        "tier", "network", "predicted p50", "measured p50", "off", "validation, short fit", "test (95 %)", "file",
        "memory", "routing",
    ]  # fmt: skip
    return table(header, rows, left=2)


def _row(what: str, variant: VariantManifest, predicted: str, off: str, scored: str) -> list[str]:
    accuracy = variant.accuracy
    return [
        variant.name,
        what,
        predicted,
        f"{cell(variant, 1).p50_s / MICRO:.0f} us",
        off,
        scored,
        f"{accuracy.value:.2%} ({accuracy.low:.1%}-{accuracy.high:.1%})",
        f"{variant.size.file_bytes / KIB:.0f} KiB",
        f"{variant.memory.loaded_bytes / KIB**2:.1f} MiB",
        variant.routing.state,
    ]


def _bars(result: SearchResult) -> list[str]:
    routable = sum(variant.routing.state == "routable" for variant in result.build.manifest.variants)
    worst, minutes, check = max(map(abs, errors(result))), result.cpu_s / 60, result.check
    held_out = f"{check.mean:.1%} on average, {check.most:.1%} at most"
    rows = [
        ["tiers beside full", f"{len(result.ladder)} ({routable} routable, full among them)", f">= {FEWEST_TIERS}"],
        ["CPU time of the whole command", f"{minutes:.1f} minutes", f"<= {MOST_CPU_MINUTES:.0f} minutes"],
        ["p50 predicted, the tier farthest off", f"{worst:.1%}", f"<= {MOST_OFF:.0%}"],
        ["p50 predicted, timed files held out", held_out, f"on {check.files} files"],
    ]  # fmt: skip
    return table(["figure", "here", "bar"], rows, left=1)


def _origin(result: SearchResult) -> str:
    manifest = result.build.manifest
    load, machine = max(variant.latency.load_average for variant in manifest.published), manifest.profiled_on
    again = "" if manifest.measured is None else f"; measured again {manifest.measured.at[:10]}"
    command = f"`tiergate search {manifest.model} --trials {result.asked}`, seed {manifest.seed}"
    return (
        f"{command}: {result.asked} networks scored in both precisions in {result.scoring_cpu_s / 60:.1f} CPU-minutes; "
        f"{manifest.built_at[:10]}{again}; {machine.cpu}, {machine.cores} cores, load average {load:.1f} while timed."
    )


if __name__ == "__main__":
    sys.exit(main())
