"""A build is resumable, reproducible, and never leaves half a version."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from variants.build import BuildOptions, BuildResult, build_model
from variants.errors import BuildBusy, GateFailed, OutputError, RecipeError, StepFailed
from variants.manifest import ModelManifest, read_manifest
from variants.recipe import DataParts, Pruning

if TYPE_CHECKING:
    from pathlib import Path

    from variants.recipe import Recipe

MAKING = ("train", "export", "teach", "prune", "distil", "quantize")


def digests(manifest: ModelManifest) -> dict[str, str]:
    return {variant.name: variant.sha256 for variant in manifest.variants}


def test_build_publishes_six_variants_with_their_files(built: BuildResult) -> None:
    names = [variant.name for variant in built.manifest.variants]
    assert names == ["full", "pruned", "quantized", "pruned-quantized", "distilled", "distilled-quantized"]
    files = {entry.name for entry in built.folder.iterdir()}
    assert files == {"manifest.json", "report.html", "pareto.png", *(f"{name}.onnx" for name in names)}
    for variant in built.manifest.variants:
        content = (built.folder / variant.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == variant.sha256
        assert len(content) == variant.size.file_bytes
    assert read_manifest(built.folder) == built.manifest


def test_build_leaves_no_work_behind_when_it_is_done(built: BuildResult) -> None:
    work = built.folder.parents[1] / ".work"
    assert [entry.name for entry in work.iterdir()] == ["tiny.lock"]


def test_build_records_parents_and_steps(manifest: ModelManifest) -> None:
    sha = digests(manifest)
    quantized = manifest.variant("pruned-quantized")
    assert (quantized.parent, quantized.parent_sha256) == ("pruned", sha["pruned"])
    assert [step.name for step in manifest.variant("pruned").steps] == ["prune", "export"]
    assert manifest.variant("full").parent is None


def test_build_records_what_making_a_variant_took(manifest: ModelManifest) -> None:
    for variant in manifest.variants:
        assert variant.cost.peak_bytes is not None
        assert variant.cost.peak_bytes > 10 * 1024 * 1024, "python and torch alone hold more"
        assert variant.cost.build_s >= variant.cost.train_s
    assert manifest.variant("distilled").cost.train_s > 0.0


def test_build_does_nothing_when_the_newest_version_is_the_same(
    built: BuildResult, tiny: Recipe, listener: type[Any]
) -> None:
    heard = listener()
    again = build_model(tiny, built.folder.parents[1], progress=heard)
    assert not again.is_new
    assert again.folder == built.folder
    assert heard.tasks == []


def test_build_resumes_where_it_was_interrupted_and_gives_the_same_bytes(
    built: BuildResult, tiny: Recipe, tmp_path: Path, listener: type[Any], stopped: type[BaseException]
) -> None:
    first = listener(stop_at="quantize distilled-quantized")
    with pytest.raises(stopped):
        build_model(tiny, tmp_path, progress=first)
    assert "train full" in first.tasks
    assert not (tmp_path / "tiny").exists()

    (spoiled,) = tmp_path.glob(".work/*/steps/export-full.step")
    spoiled.write_bytes(spoiled.read_bytes()[:-1] + b"?")
    second = listener(stop_at="publishing")
    with pytest.raises(stopped):
        build_model(tiny, tmp_path, progress=second)
    made = [name for name in second.tasks if name.startswith(MAKING)]
    assert made == ["export full", "quantize distilled-quantized"]
    assert not (tmp_path / "tiny").exists(), "killed between write and rename, there is no version"

    third = listener()
    result = build_model(tiny, tmp_path, progress=third)
    assert [name for name in third.tasks if name.startswith(MAKING)] == []
    assert result.is_new
    assert digests(result.manifest) == digests(built.manifest), (
        "same recipe, seed, tools and instruction set: same bytes"
    )
    assert result.manifest.build_key == built.manifest.build_key


def test_build_starts_anew_when_forced(
    built: BuildResult, tiny: Recipe, listener: type[Any], stopped: type[BaseException]
) -> None:
    heard = listener(stop_at="train")
    with pytest.raises(stopped):
        build_model(tiny, built.folder.parents[1], BuildOptions(force=True), heard)


def test_build_has_another_key_with_another_seed(
    built: BuildResult, tiny: Recipe, listener: type[Any], stopped: type[BaseException]
) -> None:
    with pytest.raises(stopped):
        build_model(tiny, built.folder.parents[1], BuildOptions(seed=1), listener(stop_at="train"))


def test_build_is_refused_while_another_holds_the_lock(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    with (tmp_path / ".work" / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BuildBusy, match="another build of 'tiny' is running"):
            build_model(tiny, tmp_path)


def test_build_says_so_when_the_disk_is_full(tiny: Recipe, tmp_path: Path, listener: type[Any]) -> None:
    class FullDisk(listener):  # type: ignore[misc]  # a class that arrives as a fixture
        def _hear(self, _text: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="No space left on device; nothing was published"):
        build_model(tiny, tmp_path, progress=FullDisk())
    assert not (tmp_path / "tiny").exists()


def test_build_is_refused_when_the_output_is_a_file(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write to"):
        build_model(tiny, tmp_path / "taken")


class Altered:
    """A recipe with another plan or other data."""

    def __init__(self, recipe: Recipe, **changes: object) -> None:
        self._recipe, self._changes = recipe, changes

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the recipe has
        return self._changes.get(name) or getattr(self._recipe, name)


def test_build_fails_as_a_whole_when_full_misses_its_gate(tiny: Recipe, tmp_path: Path) -> None:
    training = replace(tiny.plan.training, steps=8)
    thresholds = replace(tiny.plan.thresholds, min_full=0.999)
    pruning = Pruning(ratio=0.5, iterations=1, training=training)
    plan = replace(tiny.plan, training=training, pruning=pruning, distillation=training, thresholds=thresholds)
    with pytest.raises(GateFailed, match=r"full variant of 'tiny' misses its gate.*0\.9990 demanded"):
        build_model(Altered(tiny, plan=plan), tmp_path)
    assert not (tmp_path / "tiny").exists()


def test_build_keeps_the_evidence_of_a_rejected_variant_but_not_its_file(tiny: Recipe, tmp_path: Path) -> None:
    plan = replace(tiny.plan, thresholds=replace(tiny.plan.thresholds, min_agreement=1.01))
    result = build_model(Altered(tiny, plan=plan), tmp_path)
    by_state = {variant.name: variant.routing.state for variant in result.manifest.variants}
    assert {name for name, state in by_state.items() if state == "rejected"} == {
        "quantized", "pruned-quantized", "distilled-quantized"
    }  # fmt: skip
    files = {entry.name for entry in result.folder.iterdir() if entry.suffix == ".onnx"}
    assert files == {"full.onnx", "pruned.onnx", "distilled.onnx"}
    assert {variant.file for variant in result.manifest.variants if variant.is_published} == files
    assert "quantized.onnx" not in (result.folder / "report.html").read_text(encoding="utf-8")
    assert read_manifest(result.folder).variant("quantized").accuracy.rows == 120


def test_build_names_the_step_in_which_a_recipe_fails(tiny: Recipe, tmp_path: Path) -> None:
    def fail(_seed: int) -> DataParts:
        raise FileNotFoundError(errno.ENOENT, "No such file", "data.csv")

    with pytest.raises(StepFailed, match=r"step 'load data' failed: FileNotFoundError.*data\.csv") as caught:
        build_model(Altered(tiny, load=fail), tmp_path)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_build_refuses_parts_that_share_rows(tiny: Recipe, tmp_path: Path) -> None:
    parts = tiny.load(0)
    leaky = DataParts(parts.train, parts.calibration, parts.validation, parts.train)
    with pytest.raises(RecipeError, match="the train and test parts share"):
        build_model(Altered(tiny, load=lambda _seed: leaky), tmp_path)
