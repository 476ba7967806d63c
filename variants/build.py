"""A build from beginning to end: make the variants, measure them, publish the version.

``build_model`` tells the whole story. What it promises: the same recipe, seed, tool versions and instruction set give
the same bytes of weights; an interrupted build goes on where it stopped; a reader of the repository sees a version
entirely or not at all; a version that exists already is not built again; what a gate rejected is recorded in the
manifest, but its file is not published, so nobody can be served by it.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from variants.cache import StepCache
from variants.data import load_parts
from variants.errors import naming_step
from variants.identity import identify
from variants.interface import describe_interface
from variants.machine import describe_machine
from variants.making import Jobs, make_variants
from variants.manifest import ManifestError, ModelManifest, read_manifest
from variants.measuring import Subject, describe_variants
from variants.progress import SilentProgress
from variants.publication import model_lock, publish, refusing_full_disk, stage, versions, work_folder
from variants.report import describe_in_files
from variants.scoring import scoring_of
from variants.workshop import Workshop

if TYPE_CHECKING:
    from pathlib import Path

    from variants.identity import Identity
    from variants.measuring import Described
    from variants.progress import Progress
    from variants.recipe import AnyRecipe


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """``force`` builds even what is built already, and redoes every step; ``jobs`` make variants beside each other."""

    seed: int = 0
    force: bool = False
    jobs: Jobs | None = None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The version's folder and manifest; ``is_new`` is false when it was there before."""

    folder: Path
    manifest: ModelManifest
    is_new: bool


def build_model(
    recipe: AnyRecipe, output: Path, options: BuildOptions | None = None, progress: Progress | None = None
) -> BuildResult:
    """Build all variants of ``recipe`` into the repository ``output``, unless its newest version is this very build.

    Raises:
        BuildError: The recipe breaks the protocol, full misses its gate, another build runs, or the disk refuses.
    """
    options, progress = options or BuildOptions(), progress or SilentProgress()
    machine = describe_machine()
    parts = load_parts(recipe, options.seed)
    with naming_step("identify"):
        identity = identify(recipe, parts, options.seed, machine.isa)
    with model_lock(output, recipe.name):
        existing = None if options.force else find_built(output, recipe.name, identity.key)
        if existing is not None:
            return existing
        work = work_folder(output, recipe.name, identity.key)
        with refusing_full_disk(output):
            shutil.rmtree(work if options.force else work / "staging", ignore_errors=True)
            shop = Workshop(recipe, parts, options.seed, StepCache(work / "steps"), progress)
            made = make_variants(shop, options.jobs)
            stage({f"{one.name}.onnx": one.file for one in made}, work / "candidates")
            subject = Subject(recipe, parts, identity.splits, machine, made)
            files: dict[str, Path] = {one.name: work / "candidates" / f"{one.name}.onnx" for one in made}
            described = describe_variants(subject, files, progress)
            published = {item.name for item in described.variants if item.is_published}
            stage({one.stored_name: one.stored for one in made if one.name in published}, work / "staging")
            version = max(versions(output, recipe.name), default=0) + 1
            with naming_step("report"):
                manifest = describe_model(subject, identity, options.seed, version, described)
                documents = describe_in_files(manifest, find_before(output, recipe.name))
            stage(documents, work / "staging")
            progress.note(f"publishing {recipe.name} version {version}")
            folder = output / recipe.name / str(version)
            publish(work / "staging", folder)
            shutil.rmtree(work, ignore_errors=True)
        return BuildResult(folder, manifest, is_new=True)


def find_before(output: Path, model: str) -> ModelManifest | None:
    """Return the newest version of ``model`` that is there; ``None`` where there is none, or it cannot be read here."""
    newest = max(versions(output, model), default=None)
    with suppress(ManifestError):
        return None if newest is None else read_manifest(output / model / str(newest))
    return None


def find_built(output: Path, model: str, key: str) -> BuildResult | None:
    """Return the newest version of ``model`` if it has this build key."""
    newest = max(versions(output, model), default=None)
    if newest is None:
        return None
    folder = output / model / str(newest)
    try:
        manifest = read_manifest(folder)
    except ManifestError:
        return None  # unreadable here; the new version stands beside it
    return BuildResult(folder, manifest, is_new=False) if manifest.build_key == key else None


def describe_model(
    subject: Subject, identity: Identity, seed: int, version: int, described: Described
) -> ModelManifest:
    """Put the model's manifest together."""
    recipe = subject.recipe
    inputs, outputs = describe_interface(subject.made[0].file)
    return ModelManifest(
        model=recipe.name,
        version=str(version),
        task=scoring_of(recipe).task,
        metric=recipe.metric,
        scoring=scoring_of(recipe).form,
        labels=recipe.labels,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=max(recipe.plan.profiling.batch_sizes),
        recipe=recipe.name,
        recipe_parameters=identity.parameters,
        build_key=identity.key,
        seed=seed,
        tools=identity.tools,
        splits=identity.splits,
        machine=subject.machine,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        variants=described.variants,
        cascades=described.cascades,
        input_drift=described.input_drift,
    )
