"""Measure a built model again: the same files, new times and memory, and what routing makes of them.

What a manifest says of time and memory holds for the machine that measured it, in the state that it was in. A model
that moves to other nodes, or was built while the machine had other work, is measured again; accuracy, and everything
else that is a matter of bytes, stays as it was found. Nothing is trained and nothing converted: it takes ONNX Runtime
and some rows, where no torch is.

The result is a new version beside the old one, with copies of the same files (a gateway refuses files with several
names), so that gateways take it up like any other and can go back. A variant that a gate kept back has no file any
more; what was measured of it stays. Cascades were chosen for the times of the build, on rows that are not here: those
whose variants routing still chooses are kept, and new ones are a build's to find.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from variants.domination import Contender, decide_routing
from variants.errors import BuildError, naming_step
from variants.machine import describe_machine
from variants.manifest import Measured, ModelManifest, read_manifest
from variants.packed import PackedError, unpack
from variants.plans import Profiling
from variants.profiling import measure_speed
from variants.progress import SilentProgress
from variants.publication import WORK, model_lock, publish, refusing_full_disk, stage, versions
from variants.report import describe_in_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from variants.evidence import Latency, Memory
    from variants.manifest import VariantManifest
    from variants.progress import Progress
    from variants.recipe import Inputs


@dataclass(frozen=True, slots=True)
class Remeasured:
    """The new version's folder, and what was and is said of the model."""

    folder: Path
    before: ModelManifest
    manifest: ModelManifest


def remeasure_model(repository: Path, model: str, inputs: Inputs, progress: Progress | None = None) -> Remeasured:
    """Measure the newest version of ``model`` on this machine, and publish a version that says what was found.

    ``inputs`` (rows, ...) are rows to run, as clients send them.

    Raises:
        BuildError: There is no such model, a file is not what the manifest says, or a measurement failed.
        ManifestError: The manifest cannot be read.
    """
    progress = progress or SilentProgress()
    with model_lock(repository, model), refusing_full_disk(repository):
        newest = newest_version(repository, model)
        before = read_manifest(newest)
        with _work_folder(repository, model) as work:
            files = _copy(newest, before, work)
            with naming_step("profile"):
                speed = measure_speed(files, inputs, profiling_of(before), progress)
            manifest = describe_again(before, speed, versions(repository, model)[-1] + 1)
            stage(describe_in_files(manifest), work / "staging")
            folder = repository / model / manifest.version
            publish(work / "staging", folder)
    return Remeasured(folder, before, manifest)


def newest_version(repository: Path, model: str) -> Path:
    """Return the folder of a model's newest version.

    Raises:
        BuildError: There is none.
    """
    found = versions(repository, model)
    if not found:
        raise BuildError(f"no model '{model}' in {repository}; build one with: tiergate build RECIPE")
    return repository / model / str(found[-1])


def profiling_of(manifest: ModelManifest) -> Profiling:
    """Return the plan by which the build profiled the model.

    Raises:
        BuildError: The manifest has none.
    """
    try:
        numbers: dict[str, Any] = dict(manifest.recipe_parameters["profiling"])
        numbers |= {name: tuple(numbers[name]) for name in ("batch_sizes", "threads")}
        return Profiling(**numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise BuildError(
            f"the manifest of '{manifest.model}' has no plan to profile by in recipe_parameters.profiling "
            f"({type(error).__name__}: {error}); build the model again"
        ) from None


def describe_again(before: ModelManifest, speed: Mapping[str, tuple[Latency, Memory]], version: int) -> ModelManifest:
    """Return the manifest with these times and memory in place of those that it has, and the routing that follows."""
    timed = tuple(
        variant.model_copy(update=dict(zip(("latency", "memory"), speed[variant.name], strict=True)))
        if variant.name in speed
        else variant
        for variant in before.variants
    )
    routing = decide_routing([_contender(one) for one in timed if one.is_published and one.unpacked is None])
    variants = tuple(one.model_copy(update={"routing": routing.get(one.name, one.routing)}) for one in timed)
    routable = {one.name for one in variants if one.routing.state == "routable"}
    changed = before.model_copy(
        update={
            "version": str(version),
            "variants": variants,
            "cascades": tuple(one for one in before.cascades if {one.variant, one.escalate_to} <= routable),
            "measured": Measured(machine=describe_machine(), at=datetime.now(UTC).isoformat(timespec="seconds")),
        }
    )
    return ModelManifest.model_validate_json(changed.model_dump_json())  # a copy is not checked


@contextmanager
def _work_folder(repository: Path, model: str) -> Iterator[Path]:
    """Yield an empty folder that is gone afterwards, whatever happens."""
    work = repository / WORK / f"{model}-measure"
    shutil.rmtree(work, ignore_errors=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy(folder: Path, manifest: ModelManifest, work: Path) -> dict[str, Path]:
    """Copy every published file to where the version is put together; return by variant the ONNX file to run."""
    files = {}
    for variant in manifest.published:
        stored = _read(folder, variant)
        stage({variant.file: stored}, work / "staging")
        files[variant.name] = work / "staging" / variant.file
        if variant.unpacked is not None:
            files[variant.name] = work / "unpacked" / f"{variant.name}.onnx"
            stage({files[variant.name].name: _unpack(stored, variant)}, work / "unpacked")
    return files


def _read(folder: Path, variant: VariantManifest) -> bytes:
    try:
        content = (folder / variant.file).read_bytes()
    except OSError as error:
        raise BuildError(f"cannot read {folder / variant.file}: {error.strerror}") from None
    _check(content, variant.sha256, str(folder / variant.file))
    return content


def _unpack(stored: bytes, variant: VariantManifest) -> bytes:
    assert variant.unpacked is not None  # noqa: S101 - asked of packed variants alone
    try:
        content = unpack(stored, variant.unpacked.bytes)
    except PackedError as error:
        raise BuildError(f"{variant.file} cannot be unpacked: {error}") from None
    _check(content, variant.unpacked.sha256, f"what {variant.file} holds")
    return content


def _check(content: bytes, sha256: str, what: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BuildError(
            f"{what} has SHA-256 {found[:12]}..., its manifest says {sha256[:12]}...: it was changed after the build; "
            "copy it again, or build the model again"
        )


def _contender(variant: VariantManifest) -> Contender:
    file_bytes, is_full = variant.size.file_bytes, variant.parent is None
    return Contender.of(variant.name, variant, variant.routing.gates, file_bytes, is_full=is_full)
