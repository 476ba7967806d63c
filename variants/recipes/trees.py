"""Trees on a generated table: gradient boosting and a random forest, by count of trees, depth and features.

The table has thirty even features in 0..1. Sixteen rules over pairs of eight of them ("this above 0.4 and that below
0.6") each add or take a weight, and which third of all sums a row's lies in is its class; two labels in a hundred are
drawn anew. Such steps along axes are what trees are good at and networks are not, as in many real tables (Grinsztajn,
Oyallon, Varoquaux 2022). It is generated because the sets that ship with scikit-learn have too few rows to tell
variants apart by a point; 20,000 are held out here.

Three ways make an ensemble smaller, and all are in the tier ``pruned``: its first trees alone (both kinds are built so
that fewer trees are the first ones of the same ensemble), shallower trees, and fewer features, chosen by the importance
that a small forest gives them. A network of two hidden layers learns from the full ensemble's probabilities: its cost
does not grow with trees at all, and it can be quantized. It is asked about rows whose features are mixed from pairs of
real ones, of which the teacher alone knows the class (Bucila, Caruana, Niculescu-Mizil 2006, "Model compression").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.pipeline import make_pipeline
from torch import nn

from variants.recipe import DataParts, Examples, Quantization, TaughtPlan, Teaching, Thresholds, Training
from variants.sources.scikit import draft_estimator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from variants.recipe import Classes, Draft, Floats

FEATURES: Final = 30
TELLING: Final = 8
RULES: Final = 16
CLASSES: Final = 3
WRONG: Final = 0.02
WIDTH: Final = 128
MIXED: Final = 0.3


def make_table(rows: int, seed: int) -> tuple[Floats, Classes]:
    """Return features (rows, FEATURES) and classes (rows,); another seed has other rules."""
    draw = np.random.default_rng(seed)
    features = draw.random((rows, FEATURES), dtype=np.float32)
    sums = np.zeros(rows)
    for _ in range(RULES):
        pair, cuts = draw.choice(TELLING, 2, replace=False), draw.uniform(0.25, 0.75, 2)
        is_above = draw.random(2) < 0.5  # noqa: PLR2004 - either way
        sums += draw.normal() * ((features[:, pair] > cuts) == is_above).all(axis=1)
    edges = np.quantile(sums, np.arange(1, CLASSES) / CLASSES)
    is_wrong = draw.random(rows) < WRONG
    classes = np.where(is_wrong, draw.integers(0, CLASSES, rows), np.searchsorted(edges, sums))
    return features, classes.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows of each part, trees of the full and the small ensemble, features kept, leaves or depth of shallow trees."""

    rows: tuple[int, int, int, int] = (12_000, 500, 1_000, 20_000)
    trees: int = 200
    few: int = 40
    features: int = 10
    leaves: int = 8
    depth: int = 10


class Trees:
    """The bundled recipes: ``kind`` is the ensemble."""

    metric = "accuracy"
    dataset = "generated table of 30 features"
    labels: tuple[str, ...] = ("low", "middle", "high")
    input_name = "features"
    input_shape = (FEATURES,)
    output_name = "logits"
    plan = TaughtPlan(
        teaching=Teaching(copies=8, temperature=1.0, weight=1.0),
        distillation=Training(steps=4000, batch_size=256, learning_rate=0.005, weight_decay=1e-4, optimizer="adamw"),
        thresholds=Thresholds(min_full=0.8, max_loss=0.15, max_parity_error=0.01, min_agreement=0.95),
        quantization=Quantization(methods=("minmax", "percentile"), max_float_nodes=1),
    )

    def __init__(self, kind: Literal["boosting", "forest"], sizes: Sizes | None = None) -> None:
        self.name = "trees" if kind == "boosting" else "forest"
        self.kind, self.sizes = kind, sizes or Sizes()

    def load(self, seed: int) -> DataParts:
        """Generate the table and deal its rows out."""
        rows = self.sizes.rows
        inputs, labels = make_table(sum(rows), seed)
        ends = np.cumsum(rows)[:-1]
        parts = zip(np.split(inputs, ends), np.split(labels, ends), strict=True)
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
            return RandomForestClassifier(trees, min_samples_leaf=2, max_features=0.5, random_state=seed, **limits)
        return HistGradientBoostingClassifier(max_iter=trees, early_stopping=False, random_state=seed, **limits)

    def make_student(self) -> nn.Module:
        """Return a network of two hidden layers that scales the features itself."""
        return nn.Sequential(
            nn.BatchNorm1d(FEATURES),
            nn.Linear(FEATURES, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, CLASSES),
        )

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return rows that have each feature from one of two rows."""
        other = inputs[torch.randperm(len(inputs), generator=generator)]
        return torch.where(torch.rand(inputs.shape, generator=generator) < MIXED, other, inputs)


RECIPE = Trees("boosting")
