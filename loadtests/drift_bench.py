"""Drift against its bars: ``python -m loadtests.drift_bench``, or ``make bench-drift``.

Real models of a repository, classifiers of pictures or of the recipe ``text``, answer rows that no build has seen,
clean, under a dozen shifts and with damaged weights. From these answers four things are measured: how soon a drop of
five points is found and how often there is a false alarm, ours and other detectors side by side; how far estimates
without labels lie from the truth; who is blamed where full itself is damaged; and which tests of the inputs see which
shift. Answers are kept in ``--work``, so that figures can be made again without running a model. All processors are
used; nothing here is a matter of speed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console

from loadtests.drift import page
from loadtests.drift.answers import Source, gather
from loadtests.drift.comparing import run_comparison
from loadtests.drift.detecting import REPEATS, run_detection
from loadtests.drift.estimating import run_estimates
from loadtests.drift.kept import Kept
from loadtests.drift.picture import draw
from loadtests.drift.references import ReferenceMissing
from loadtests.drift.spreading import beside_each_other
from loadtests.drift.texts import TextsMissing
from loadtests.drift.witnessing import run_witnesses
from loadtests.drift.worlds import WorldUnknown
from loadtests.marked_page import MarksMissing
from loadtests.record import describe_run
from variants.manifest import ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM: Final = "python -m loadtests.drift_bench"
_RESULTS: Final = Path(__file__).parent / "results" / "drift.json"
_ROWS: Final = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write results, page and picture; return the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parse(given)
    console = Console(stderr=True, highlight=False)
    try:
        models = {}
        for folder, rows in parsed.model:
            source = _source(_newest(Path(folder)), Path(rows), parsed.rows)
            found = gather(source, Kept(parsed.work / Path(folder).name), console.print)
            models[found.manifest.model] = found
        document: dict[str, Any] = describe_run(_PROGRAM, given)
        document |= {"models": {name: len(found.clean.labels) for name, found in models.items()}}
        document |= {"estimates": run_estimates(models)}
        document |= {"inputs": run_comparison(models)}
        with beside_each_other() as spread:
            document |= {"witnesses": run_witnesses(models, spread, console.print)}
            document |= {"detection": run_detection(models, spread, console.print, parsed.repeats)}
        if parsed.plot is not None:
            draw(document, parsed.plot)
        page.shorten(document)
        parsed.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        if parsed.docs is not None:
            page.rewrite(parsed.docs, document, parsed.plot)
    except (ManifestError, MarksMissing, OSError, ReferenceMissing, TextsMissing, WorldUnknown) as error:
        console.print(f"drift bench: {error}")
        return 1
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--model", nargs=2, action="append", required=True, metavar=("FOLDER", "ROWS"),
        help="a model's folder in a repository, and an .npz of `inputs` and `labels` that its build has not seen",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("drift-bench"), help="where answers are kept")
    parser.add_argument("--rows", type=int, default=_ROWS, help="rows of each shift")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="times that each fault is drawn for detectors")
    parser.add_argument("--output", type=Path, default=_RESULTS)
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--docs", type=Path, help="a page with the bench's marks")
    return parser.parse_args(arguments)


def _newest(model: Path) -> Path:
    """Return the folder of a model's highest version; the model's own where there is none, for the error to name."""
    versions = [folder for folder in model.glob("*") if folder.name.isdecimal()]
    return max(versions, key=lambda folder: int(folder.name), default=model)


def _source(folder: Path, rows: Path, most: int) -> Source:
    with np.load(rows) as stored:
        return Source(folder, stored["inputs"], stored["labels"], min(most, len(stored["labels"])))


if __name__ == "__main__":
    sys.exit(main())
