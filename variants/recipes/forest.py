"""A random forest on the table of ``variants.recipes.trees``, and its smaller forms."""

from __future__ import annotations

from variants.recipes.trees import Sizes, Trees

RECIPE = Trees("forest", Sizes(trees=60, few=8, depth=8))
