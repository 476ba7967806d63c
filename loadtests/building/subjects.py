"""The models that the bench looks at, where they were built, and rows to ask them with.

A model is built by ``tiergate build`` and its rows are written by ``tiergate rows``, each in a process of its own, so
that the bench sees what a user sees. What is built already is taken as it is.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from variants.manifest import MANIFEST_FILE, read_manifest
from variants.packed import unpack
from variants.sources.recipes import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from variants.manifest import ModelManifest, VariantManifest

    Rows = tuple[NDArray[Any], NDArray[Any]]

DOWNLOADS: Final = {"digits-download": str(Path(__file__).parent / "download_recipe.py")}
"""What is built for the bar of the download tier alone. It is not timed: a packed variant runs as full, and the other
files are those of the bundled recipe."""
RECIPES: Final[Mapping[str, str]] = {name: name for name in BUNDLED} | DOWNLOADS
"""What ``tiergate build`` takes for each model."""


INT8_STEPS: Final = ("quantize", "quantize-dynamic")


class BenchError(RuntimeError):
    """A build or its rows could not be had."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One built model: its version's folder and manifest, and the recipe that gives its rows."""

    folder: Path
    manifest: ModelManifest
    recipe: str

    @property
    def timed(self) -> tuple[VariantManifest, ...]:
        """The variants whose speed is their own: a packed one runs as the file that it holds."""
        return tuple(variant for variant in self.manifest.published if variant.unpacked is None)

    def file(self, variant: VariantManifest) -> bytes:
        """Return the ONNX file of a published variant, unpacked."""
        stored = (self.folder / variant.file).read_bytes()
        return stored if variant.unpacked is None else unpack(stored, variant.unpacked.bytes)


def find_subjects(repositories: Sequence[Path], models: Sequence[str]) -> dict[str, Subject]:
    """Return the models that are built, each from the first repository that has it, in its newest version."""
    found = {}
    for name in models:
        folder = next((newest for root in repositories if (newest := _newest(root / name)) is not None), None)
        if folder is not None:
            found[name] = Subject(folder, read_manifest(folder), RECIPES[name])
    return found


def build(model: str, repository: Path) -> None:
    """Build a model by its recipe; an interrupted build goes on where it stopped.

    Raises:
        BenchError: The build failed.
    """
    _tiergate(["build", RECIPES[model], "--output", str(repository), "--json"])


def measure_again(subject: Subject, work: Path) -> None:
    """Have the manifest's latency and memory measured anew, in a version of its own, on the rows of the build.

    Raises:
        BenchError: That failed.
    """
    rows, manifest = _rows_file(subject, work), subject.manifest
    where = ["--repository", str(subject.folder.parents[1]), "--rows", str(rows)]
    _tiergate(["measure", manifest.model, *where, "--json"])


def facts_of(subject: Subject) -> dict[str, Any]:
    """Return what the bars and the page use of a manifest."""
    manifest = subject.manifest
    return {
        "build_key": manifest.build_key,
        "built_at": manifest.built_at,
        "recipe": manifest.recipe,
        "rows": manifest.splits["test"].rows,
        "measured_at": None if manifest.measured is None else manifest.measured.at,
        "load_average": manifest.variants[0].latency.load_average,
        "variants": {variant.name: _facts_of(variant) for variant in manifest.published},
    }


def _facts_of(variant: VariantManifest) -> dict[str, Any]:
    accuracy = variant.accuracy
    return {
        "tier": variant.tier,
        "parent": variant.parent,
        "state": variant.routing.state,
        "is_packed": variant.unpacked is not None,
        "is_int8": any(step.name in INT8_STEPS for step in variant.steps),
        "file_bytes": variant.size.file_bytes,
        "macs": variant.size.macs,
        "accuracy": accuracy.value,
        "lost": accuracy.lost,
        "gained": accuracy.gained,
    }


def test_rows(subject: Subject, work: Path) -> Rows:
    """Return the test rows that the model's build measured on, and their labels, kept in ``work``.

    Raises:
        BenchError: They cannot be had.
    """
    with np.load(_rows_file(subject, work)) as stored:
        return stored["inputs"], stored["labels"]


def _rows_file(subject: Subject, work: Path) -> Path:
    manifest = subject.manifest
    kept = work / f"{manifest.model}-{manifest.seed}-{manifest.splits['test'].sha256[:12]}.npz"
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        _tiergate(["rows", subject.recipe, str(kept), "--seed", str(manifest.seed)])
    return kept


def _newest(model: Path) -> Path | None:
    versions = [folder for folder in model.glob("*") if folder.name.isdecimal() and (folder / MANIFEST_FILE).is_file()]
    return max(versions, key=lambda folder: int(folder.name), default=None)


def _tiergate(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "service.cli", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own program
    if done.returncode != 0:
        raise BenchError(f"'tiergate {' '.join(arguments)}' ended with {done.returncode}")
