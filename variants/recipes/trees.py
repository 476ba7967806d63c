"""Trees on a generated table: gradient boosting and a random forest, by count of trees, depth and features.

The table is scikit-learn's ``make_classification``: forty features of which a dozen tell four classes apart in three
clusters each, eight repeat those, and the rest is noise; two labels in a hundred are wrong. It is generated because the
sets that ship with scikit-learn have too few rows to tell variants apart by a point; 6,000 are held out here.

Three ways make an ensemble smaller, and all are in the tier ``pruned``: its first trees alone (both kinds are built so
that fewer trees are the first ones of the same ensemble), shallower trees, and fewer features, chosen by how the full
model uses them. A network of two hidden layers learns from the full ensemble's probabilities: its cost does not grow
with trees at all, and it can be quantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.pipeline import make_pipeline
from torch import nn

from variants.recipe import DataParts, Examples, Quantization, TaughtPlan, Teaching, Thresholds, Training
from variants.sources.scikit import draft_estimator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from variants.recipe import Draft

FEATURES: Final = 40
CLASSES: Final = 4
JITTER: Final = 0.15
"""Of a feature's spread, about one here: how far rows that the teacher is asked about lie from real ones."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows of each part, trees of the full and the small ensemble, features kept, leaves or depth of shallow trees."""

    rows: tuple[int, int, int, int] = (12_000, 500, 1_000, 6_000)
    trees: int = 200
    few: int = 40
    features: int = 20
    leaves: int = 8
    depth: int = 9


class Trees:
    """The bundled recipes: ``kind`` is the ensemble."""

    metric = "accuracy"
    dataset = "generated table of 40 features"
    labels: tuple[str, ...] = tuple("ABCD")
    input_name = "features"
    input_shape = (FEATURES,)
    output_name = "logits"
    plan = TaughtPlan(
        teaching=Teaching(copies=6, temperature=2.0, weight=0.9),
        distillation=Training(steps=3000, batch_size=256, learning_rate=0.005, weight_decay=1e-4, optimizer="adamw"),
        thresholds=Thresholds(min_full=0.85, max_loss=0.12, max_parity_error=0.01, min_agreement=0.95),
        quantization=Quantization(methods=("minmax", "percentile"), max_float_nodes=1),
    )

    def __init__(self, kind: Literal["boosting", "forest"], sizes: Sizes | None = None) -> None:
        self.name = "trees" if kind == "boosting" else "forest"
        self.kind, self.sizes = kind, sizes or Sizes()

    def load(self, seed: int) -> DataParts:
        """Generate the table and deal its rows out."""
        rows = self.sizes.rows
        inputs, labels = make_classification(
            n_samples=sum(rows),
            n_features=FEATURES,
            n_informative=12,
            n_redundant=8,
            n_classes=CLASSES,
            n_clusters_per_class=3,
            flip_y=0.02,
            class_sep=1.4,
            random_state=seed,
        )
        ends = np.cumsum(rows)[:-1]
        parts = zip(np.split(inputs.astype(np.float32), ends), np.split(labels.astype(np.int64), ends), strict=True)
        return DataParts(*(Examples(*part) for part in parts))

    def draft(self, parts: DataParts, seed: int) -> Iterator[Draft]:
        """Return the ensemble and its smaller forms."""
        sizes = self.sizes
        shallow = {"max_leaf_nodes": sizes.leaves} if self.kind == "boosting" else {"max_depth": sizes.depth}
        selector = SelectFromModel(
            RandomForestClassifier(sizes.few, random_state=seed), max_features=sizes.features, threshold=-np.inf
        )
        yield draft_estimator("full", "full", self._ensemble(sizes.trees, seed), parts)
        yield draft_estimator("fewer-trees", "pruned", self._ensemble(sizes.few, seed), parts)
        yield draft_estimator("shallower", "pruned", self._ensemble(sizes.trees, seed, **shallow), parts)
        chosen = make_pipeline(selector, self._ensemble(sizes.few, seed))
        yield draft_estimator("fewer-features", "pruned", chosen, parts)

    def _ensemble(self, trees: int, seed: int, **limits: int) -> Any:  # noqa: ANN401 - scikit-learn ships no types
        if self.kind == "forest":
            return RandomForestClassifier(trees, min_samples_leaf=2, random_state=seed, **limits)
        return HistGradientBoostingClassifier(max_iter=trees, early_stopping=False, random_state=seed, **limits)

    def make_student(self) -> nn.Module:
        """Return a network of two hidden layers that scales the features itself."""
        return nn.Sequential(
            nn.BatchNorm1d(FEATURES),
            nn.Linear(FEATURES, 96),
            nn.ReLU(),
            nn.Linear(96, 96),
            nn.ReLU(),
            nn.Linear(96, CLASSES),
        )

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return rows near these."""
        return inputs + JITTER * torch.randn(inputs.shape, generator=generator)


RECIPE = Trees("boosting")
