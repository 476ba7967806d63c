"""``tiergate build``, ``tiergate inspect`` and ``tiergate rows``.

Handlers import what they need when they run: ``tiergate --help`` stays quick, and an install without torch can still
inspect, and can be told which extra brings the rest. Named errors become one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from variants.manifest import ModelManifest

REFUSED: Final = 2
INTERRUPTED: Final = 130
LARGEST_SEED: Final = 2**31 - 1
RECIPE_HELP: Final = (
    "a bundled recipe (detection, digits, forest, images, regression, text, trees), a .py file that assigns RECIPE, or "
    "for build a trained model: an .onnx file or a Hugging Face folder"
)


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``build``, ``inspect`` and ``rows``; each sets ``run``, which takes the arguments and returns a code."""
    build = subparsers.add_parser("build", help="make a model's variants, measure them, publish them in a repository")
    build.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    build.add_argument(
        "--output", metavar="REPOSITORY", type=Path, default=Path("repository"), help="default: %(default)s"
    )
    build.add_argument(
        "--seed", metavar="N", type=parse_seed, default=0, help="decides data split and weights; default: 0"
    )
    build.add_argument(
        "--jobs", metavar="N", type=whole, default=1, help="processes that make variants beside each other; default: 1"
    )
    build.add_argument("--force", action="store_true", help="build again, from the first step, what is built already")
    build.add_argument("--json", action="store_true", help="print the manifest instead of a table; no progress")
    build.add_argument("--verbose", action="store_true", help="when a step fails, print also where it failed")
    given = build.add_argument_group("for a trained model")
    given.add_argument(
        "--calibration", metavar="FILE", type=Path, help="rows as clients send them: .npz with an array for each input"
    )
    given.add_argument("--evaluate", metavar="FILE", type=Path, help="the same with an array 'labels', to measure on")
    given.add_argument("--name", help="what clients call the model; default: the file's name")
    given.add_argument("--tolerance", metavar="X", type=positive, help="answers are values, right within this")
    given.add_argument("--boxes", action="store_true", help="answers are boxes, as YOLO's: [rows, 4 + classes, places]")
    given.add_argument(
        "--fix", metavar="AXIS=SIZE", type=_axis, action="append", default=[], help="size of an axis beside the batch"
    )
    build.set_defaults(run=run_build)
    inspect = subparsers.add_parser(
        "inspect", help="show a model's variants: size, memory, latency, accuracy, verdicts"
    )
    inspect.add_argument("model", metavar="MODEL", help="a model in the repository, or the path of a model or version")
    inspect.add_argument(
        "--repository", metavar="REPOSITORY", type=Path, default=Path("repository"), help="default: %(default)s"
    )
    inspect.add_argument("--json", action="store_true", help="print the manifest")
    inspect.add_argument("--png", metavar="FILE", type=Path, help="write the Pareto plot")
    inspect.add_argument("--html", metavar="FILE", type=Path, help="write the report, one file that needs no other")
    inspect.set_defaults(run=run_inspect)
    rows = subparsers.add_parser("rows", help="write a recipe's rows and labels to a file, to send them to a server")
    rows.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    rows.add_argument("output", metavar="FILE", type=Path, help="an .npz file with the arrays inputs and labels")
    rows.add_argument(
        "--part", choices=("train", "calibration", "validation", "test"), default="test", help="default: %(default)s"
    )
    rows.add_argument("--seed", metavar="N", type=parse_seed, default=0, help="as the build's; default: 0")
    rows.set_defaults(run=run_rows)


def run_build(arguments: argparse.Namespace) -> int:
    """Build, and print the table or the manifest; return the exit code."""
    from variants.errors import BuildError

    try:
        return _build(arguments)
    except BuildError as error:
        if arguments.verbose:
            traceback.print_exception(error)
        return refuse(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("tiergate build: interrupted; run the same command again to go on where it stopped\n")
        return INTERRUPTED


def run_inspect(arguments: argparse.Namespace) -> int:
    """Print the table or the manifest and write what was asked for; return the exit code."""
    from variants.errors import BuildError
    from variants.manifest import ManifestError, read_manifest

    try:
        folder = find_version(arguments.model, arguments.repository)
        manifest = read_manifest(folder)
        _write_documents(manifest, arguments)
    except (BuildError, ManifestError) as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"cannot write {error.filename}: {error.strerror}")
    show(manifest, as_json=arguments.json)
    return 0


def run_rows(arguments: argparse.Namespace) -> int:
    """Write one part of a recipe's data to an ``.npz`` file; return the exit code."""
    from variants.data import load_parts, write_rows
    from variants.errors import BuildError
    from variants.sources.recipes import load_recipe

    try:
        part = load_parts(load_recipe(arguments.recipe), arguments.seed).named()[arguments.part]
        write_rows(part, arguments.output)
    except BuildError as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"cannot write {arguments.output}: {error.strerror}")
    print(f"{len(part)} {arguments.part} rows in {arguments.output}")
    return 0


def find_version(model: str, repository: Path) -> Path:
    """Return the folder of a version: ``model`` is a path of one, or of a model's folder, or a name in ``repository``.

    Raises:
        BuildError: There is none.
    """
    from variants.errors import BuildError
    from variants.manifest import MANIFEST_FILE
    from variants.publication import versions

    for folder in (Path(model), repository / model):
        if (folder / MANIFEST_FILE).is_file():
            return folder
        found = versions(folder.parent, folder.name)
        if found:
            return folder / str(found[-1])
    raise BuildError(
        f"no model '{model}' in {repository}, and no version folder of that path; build one with: tiergate build RECIPE"
    )


def _build(arguments: argparse.Namespace) -> int:
    from variants.effort import watch_effort
    from variants.progress import choose_progress
    from variants.sources.models import Given, load_source, reload_of

    given = Given(
        source=Path(arguments.recipe),
        calibration=arguments.calibration,
        evaluate=arguments.evaluate,
        name=arguments.name,
        tolerance=arguments.tolerance,
        fixed=dict(arguments.fix),
        boxes=arguments.boxes,
    )
    recipe = load_source(given)
    from variants.build import BuildOptions, build_model  # after the check that torch is there
    from variants.making import Jobs

    progress = choose_progress(sys.stderr, quiet=arguments.json)
    jobs = Jobs(arguments.jobs, reload_of(given, recipe))
    options = BuildOptions(seed=arguments.seed, force=arguments.force, jobs=jobs)
    with watch_effort() as effort:
        result = build_model(recipe, arguments.output, options, progress)
    show(result.manifest, as_json=arguments.json)
    if not arguments.json:
        print(f"this run: {effort}")
        print(
            f"published in {result.folder}"
            if result.is_new
            else f"already built: {result.folder} (--force builds again)"
        )
    return 0


def show(manifest: ModelManifest, *, as_json: bool) -> None:
    """Print the manifest, or its tables."""
    if as_json:
        print(manifest.model_dump_json(indent=2))
        return
    from rich.console import Console

    from variants.table import draw_table

    console = Console()
    for part in draw_table(manifest, console.width):
        console.print(part)


def _write_documents(manifest: ModelManifest, arguments: argparse.Namespace) -> None:
    if arguments.html is not None:
        from variants.report import render_html

        arguments.html.write_text(render_html(manifest), encoding="utf-8")
    if arguments.png is not None:
        from variants.pareto import draw_png

        arguments.png.write_bytes(draw_png(manifest))


def parse_seed(text: str) -> int:
    """Return a seed, a whole number from 0 to what every generator takes."""
    if not text.isascii() or not text.isdigit() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 0 to {LARGEST_SEED}")
    return int(text)


def positive(text: str) -> float:
    """Return a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return value


def whole(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0")
    return int(text)


def _axis(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    if not name or not size.isascii() or not size.isdigit() or not int(size):
        raise argparse.ArgumentTypeError(f"'{text}' is not AXIS=SIZE, as in sequence=128")
    return name, int(size)


def refuse(message: str) -> int:
    """Write one line on stderr; return the exit code."""
    sys.stderr.write(f"tiergate: {message}\n")
    return REFUSED
