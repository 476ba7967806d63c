"""What other settings did is told from two manifests, and stands in the report of the later version."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.variants.tiny_recipe import Tiny
from variants.build import build_model
from variants.changes import changed_settings, effects
from variants.report import render_html

if TYPE_CHECKING:
    from pathlib import Path

    from variants.manifest import ModelManifest


def test_a_version_says_what_its_settings_did_since_the_one_before(tmp_path: Path) -> None:
    one, other = Tiny(), Tiny()
    plain = replace(Tiny.plan, pruning=None, quantization=None)
    one.plan = replace(plain, training=replace(plain.training, augments=False))
    other.plan = replace(plain, training=replace(plain.training, weight_decay=0.001, dropout=0.0))
    first, second = (build_model(recipe, tmp_path) for recipe in (one, other))
    assert changed_settings(first.manifest, second.manifest) == (
        ("training.weight_decay", "0.0005", "0.001"),
        ("training.dropout", "None", "0.0"),
        ("training.augments", "False", "True"),
    )
    report = (second.folder / "report.html").read_text(encoding="utf-8")
    assert "Since version 1" in report
    assert "training.weight_decay" in report
    full = second.manifest.variants[0].accuracy.value
    assert f"{full:.2%}" in report.split("Since version 1")[1]
    assert "Since version" not in (first.folder / "report.html").read_text(encoding="utf-8")
    assert first.manifest.variants[0].sha256 != second.manifest.variants[0].sha256


def test_a_build_of_other_code_says_that_no_setting_differs(manifest: ModelManifest) -> None:
    older = manifest.model_copy(update={"version": "7", "build_key": "0" * 64})
    assert "Since version 7" in (page := render_html(manifest, older))
    assert "No setting: the recipe's code" in page
    assert "Since version" not in render_html(manifest, manifest)


def test_variants_of_one_version_alone_are_told_as_such(manifest: ModelManifest) -> None:
    fewer = manifest.model_copy(update={"variants": manifest.variants[:2]})
    told = {item.variant: item for item in effects(manifest, fewer)}
    assert list(told) == [item.name for item in manifest.variants]
    gone = told[manifest.variants[-1].name]
    assert gone.accuracy[1] == gone.size[1] == gone.time[1] == "-"
    assert told["full"].accuracy[0] == told["full"].accuracy[1]
    assert changed_settings(manifest, manifest) == ()


def test_a_setting_that_did_not_exist_yet_is_nobodys_change(manifest: ModelManifest) -> None:
    def with_plan(**plan: object) -> ModelManifest:
        return manifest.model_copy(update={"recipe_parameters": plan})

    before = with_plan(training={"steps": 40}, pruning=None)
    after = with_plan(training={"steps": 50, "augments": True}, pruning={"ratio": 0.5}, novelty=None)
    assert changed_settings(before, after) == (("training.steps", "40", "50"), ("pruning.ratio", "-", "0.5"))
    assert changed_settings(after, before) == (("training.steps", "50", "40"), ("pruning.ratio", "0.5", "-"))
