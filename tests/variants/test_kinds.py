"""Recipes of other kinds than networks that tell classes apart, each built whole at a tiny size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from variants.build import build_model
from variants.errors import RecipeError
from variants.recipe import DataParts, Examples, Profiling, Pruning, Quantization, Teaching, Thresholds, Training
from variants.recipes import forest, regression, trees
from variants.runtime import run_logits
from variants.scoring import Values
from variants.sizing import measure_size
from variants.sources.recipes import load_recipe
from variants.sources.scikit import answers_of, convert, draft_estimator
from variants.table import draw_table

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from variants.manifest import ModelManifest
    from variants.recipe import Draft

PROFILING = Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=4, cell_s=0.1, memory_repeats=1)
SHORT = Training(steps=10, batch_size=64, learning_rate=0.01, optimizer="adamw")
SIZES = trees.Sizes(rows=(600, 60, 60, 200), trees=12, few=4, features=10, leaves=4, depth=3)


class FewTrees(trees.Trees):
    plan = replace(
        trees.Trees.plan,
        teaching=Teaching(copies=1, temperature=1.0, weight=1.0),
        distillation=SHORT,
        thresholds=Thresholds(min_full=0.4, max_loss=1.0, max_parity_error=0.01, min_agreement=0.0),
        quantization=Quantization(methods=("minmax",), max_float_nodes=1),
        profiling=PROFILING,
    )


class ShortRegression(regression.Regression):
    plan = replace(
        regression.Regression.plan,
        training=SHORT,
        pruning=Pruning(ratio=0.5, iterations=1, training=SHORT),
        distillation=SHORT,
        thresholds=Thresholds(min_full=0.0, max_loss=1.0, min_agreement=0.0),
        quantization=Quantization(methods=("minmax",), max_float_nodes=0),
        profiling=PROFILING,
    )

    def load(self, seed: int) -> DataParts:
        parts = super().load(seed)
        return DataParts(*(Examples(part.inputs[:200], part.labels[:200]) for part in parts.named().values()))

    def make_model(self) -> torch.nn.Module:
        return self.make_student()


def words(manifest: ModelManifest) -> str:
    return " ".join(
        str(column.header) for part in draw_table(manifest, 400)[:1] for column in getattr(part, "columns", ())
    )


@pytest.fixture(scope="module")
def of_trees(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    return build_model(FewTrees("boosting", SIZES), tmp_path_factory.mktemp("trees")).manifest


def test_trees_are_built_by_count_depth_and_features_and_teach_a_network(of_trees: ModelManifest) -> None:
    assert [(variant.name, variant.tier, variant.parent) for variant in of_trees.variants] == [
        ("full", "full", None),
        ("fewer-trees", "pruned", "full"),
        ("shallower", "pruned", "full"),
        ("fewer-features", "pruned", "full"),
        ("distilled", "distilled", "full"),
        ("distilled-quantized", "distilled-quantized", "distilled"),
    ]
    assert (of_trees.task, of_trees.inputs[0].shape, of_trees.outputs[0].shape) == ("classification", (-1, 30), (-1, 3))


def test_trees_say_what_their_estimator_says(of_trees: ModelManifest) -> None:
    for name in ("full", "fewer-trees", "shallower", "fewer-features"):
        parity = of_trees.variant(name).parity
        assert parity is not None
        assert (parity.argmax_agreement, parity.max_error < 1e-4) == (1.0, True)
        assert "max_iter=" in of_trees.variant(name).steps[0].parameters["estimator"]


def test_size_of_trees_counts_thresholds_and_leaves(of_trees: ModelManifest) -> None:
    full, few = (of_trees.variant(name).size for name in ("full", "fewer-trees"))
    assert full.macs == 0
    assert full.parameters > 2 * few.parameters > 0
    assert full.weight_bytes["FLOAT"] == 4 * full.parameters


def test_the_first_trees_of_an_ensemble_are_the_same(tmp_path: Path) -> None:
    recipe = FewTrees("forest", SIZES)
    parts = recipe.load(0)
    full, few = ({draft.name: draft for draft in recipe.draft(parts, 0)}[name] for name in ("full", "fewer-trees"))
    assert few.make().file == few.make().file, "the same bytes again"
    assert len(few.make().file) < 0.6 * len(full.make().file)
    assert tmp_path.exists()


def test_table_is_the_same_for_a_seed_and_hard_to_guess() -> None:
    features, classes = trees.make_table(3000, seed=3)
    assert (trees.make_table(3000, seed=3)[1] == classes).all()
    assert np.bincount(classes).min() > 600
    assert 0.0 <= features.min() <= features.max() <= 1.0


def test_values_are_built_with_their_own_measures(tmp_path: Path) -> None:
    manifest = build_model(ShortRegression(), tmp_path).manifest
    assert [variant.name for variant in manifest.variants] == [
        "full", "pruned", "quantized", "pruned-quantized", "distilled", "distilled-quantized"
    ]  # fmt: skip
    assert (manifest.task, manifest.metric, manifest.labels, manifest.cascades) == ("regression", "within 1.5", (), ())
    assert manifest.outputs[0].shape == (-1, 1)
    for variant in manifest.variants:
        assert set(variant.accuracy.beside) == {"r2", "mean absolute error", "root mean square error"}
        assert variant.parity is not None
    assert "r2" in words(manifest)


def test_any_pipeline_can_be_a_recipe(tmp_path: Path) -> None:
    class Mine:
        name, metric, dataset, labels = "mine", "accuracy", "a table", ("low", "middle", "high")
        plan = replace(FewTrees.plan, thresholds=replace(FewTrees.plan.thresholds, min_full=0.3))

        def load(self, seed: int) -> DataParts:
            return FewTrees("boosting", SIZES).load(seed)

        def draft(self, parts: DataParts, seed: int) -> list[Draft]:
            small = make_pipeline(StandardScaler(), LogisticRegression(random_state=seed))
            big = HistGradientBoostingClassifier(max_iter=12, random_state=seed)
            return [draft_estimator("full", "full", big, parts), draft_estimator("linear", "distilled", small, parts)]

    manifest = build_model(Mine(), tmp_path).manifest
    assert [variant.name for variant in manifest.variants] == ["full", "linear"]
    assert "LogisticRegression" in manifest.variant("linear").steps[0].parameters["estimator"]


def test_a_regressor_is_converted_to_values() -> None:
    parts = ShortRegression().load(0)
    model = GradientBoostingRegressor(n_estimators=5).fit(parts.train.inputs, parts.train.labels)
    values = run_logits(convert(model, parts.train.inputs[:1]), parts.test.inputs)
    assert values.shape == (200, 1)
    assert Values(1e-3).same(values, answers_of(model, parts.test.inputs)).all()
    assert measure_size(convert(model, parts.train.inputs[:1])).parameters > 0


def test_an_estimator_without_a_conversion_is_named() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    with pytest.raises(RecipeError, match="skl2onnx cannot convert"):
        convert(make_pipeline(Unknown()).fit(rows), rows[:1])


class Unknown(LocalOutlierFactor):  # type: ignore[misc]  # scikit-learn ships no types
    """An estimator that nobody converts."""


@pytest.mark.parametrize(("name", "recipe"), [("trees", trees), ("forest", forest), ("regression", regression)])
def test_bundled_recipes_are_found_by_name(name: str, recipe: object) -> None:
    assert load_recipe(name) is vars(recipe)["RECIPE"]
