"""``tiergate measure``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from variants.cli import INTERRUPTED, refuse, show

if TYPE_CHECKING:
    import argparse

    from variants.manifest import ModelManifest
    from variants.recipe import Inputs


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``measure``; it sets ``run``, which takes the arguments and returns a code."""
    measure = subparsers.add_parser(
        "measure",
        help="measure a built model's latency and memory again, on this machine",
        description="Time the newest version's variants again on this machine, side by side, and publish a new version "
        "of the same files that says what was found, with the routing that follows. With --rows it needs no torch.",
    )
    measure.add_argument("model", metavar="MODEL", help="name of a model in the repository")
    measure.add_argument(
        "--repository", metavar="REPOSITORY", type=Path, default=Path("repository"), help="default: %(default)s"
    )
    measure.add_argument(
        "--rows",
        metavar="FILE",
        type=Path,
        help="rows to run, as `tiergate rows` writes them, or an .npz with an array for each input; default: the test "
        "rows of a bundled recipe",
    )
    measure.add_argument("--json", action="store_true", help="print the manifest instead of tables; no progress")
    measure.set_defaults(run=run_measure)


def run_measure(arguments: argparse.Namespace) -> int:
    """Measure, and print what changed or the manifest; return the exit code."""
    from variants.errors import BuildError
    from variants.manifest import ManifestError

    try:
        return _measure(arguments)
    except (BuildError, ManifestError) as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("tiergate measure: interrupted; the repository is as it was\n")
        return INTERRUPTED


def _measure(arguments: argparse.Namespace) -> int:
    from variants.manifest import read_manifest
    from variants.progress import choose_progress
    from variants.remeasure.changes import tell_changes
    from variants.remeasure.run import newest_version, remeasure_model

    inputs = _rows(arguments.rows, read_manifest(newest_version(arguments.repository, arguments.model)))
    progress = choose_progress(sys.stderr, quiet=arguments.json)
    found = remeasure_model(arguments.repository, arguments.model, inputs, progress)
    show(found.manifest, as_json=arguments.json)
    if not arguments.json:
        print("", *tell_changes(found), f"published in {found.folder}", sep="\n")
    return 0


def _rows(file: Path | None, manifest: ModelManifest) -> Inputs:
    """Return rows to run: those of the file, or the test rows of the recipe that the model was built by."""
    from variants.errors import RecipeError
    from variants.sources.arrays import read_arrays, take_inputs, wanted_arrays
    from variants.sources.recipes import BUNDLED, load_recipe

    if file is not None:
        return take_inputs(read_arrays(file), manifest.inputs, file)
    if manifest.recipe in BUNDLED:
        from variants.data import load_parts

        return load_parts(load_recipe(manifest.recipe), manifest.seed).test.inputs
    raise RecipeError(
        f"'{manifest.model}' was built by no bundled recipe, so that its rows are not known here: give --rows FILE "
        f"with {wanted_arrays(manifest.inputs)}"
    )
