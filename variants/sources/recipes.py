"""Find a recipe: a bundled name, or the path of a ``.py`` file that assigns one to ``RECIPE``."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from variants.errors import MissingPart, RecipeError
from variants.manifest import NAME_PATTERN
from variants.recipe import AnyRecipe, FileRecipe, Recipe

if TYPE_CHECKING:
    from types import ModuleType

BUNDLED: Final = ("detection", "digits", "forest", "images", "regression", "text", "trees")
ACCEPTED: Final = (
    f"a bundled recipe ({', '.join(BUNDLED)}), the path of a .py file that assigns RECIPE, or a trained model: an "
    ".onnx file or a Hugging Face folder"
)
INSTALL: Final = "pip install 'tiergate[build]'"


def load_recipe(source: str) -> AnyRecipe:
    """Return the recipe that ``source`` names.

    Raises:
        RecipeError: There is none, or it does not have what the protocol asks.
        MissingPart: It needs a package that is not installed.
    """
    require_build_extra()
    if source in BUNDLED:
        module = importlib.import_module(f"variants.recipes.{source}")
    elif source.endswith(".py"):
        module = _load_file(Path(source))
    else:
        raise RecipeError(f"'{source}' is not a recipe; accepted: {ACCEPTED}")
    return _check(getattr(module, "RECIPE", None), source)


def require_build_extra() -> None:
    """Make sure that what builds need is installed, without importing it.

    Raises:
        MissingPart: Something is not; names the extra to install.
    """
    for package in ("torch", "onnx", "torch_pruning", "sklearn"):
        try:
            found = importlib.util.find_spec(package) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            raise MissingPart(f"building needs '{package}', which is not installed; get it with: {INSTALL}")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise RecipeError(f"there is no recipe file '{path}'; accepted: {ACCEPTED}")
    spec = importlib.util.spec_from_file_location(f"tiergate_recipe_{path.stem}", path)
    assert spec is not None  # noqa: S101 - a path that ends in .py always has a loader
    assert spec.loader is not None  # noqa: S101 - the same
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and inspect look the module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RecipeError(f"recipe file '{path}' fails: {type(error).__name__}: {error}") from error
    return module


def _check(recipe: Any, source: str) -> AnyRecipe:  # noqa: ANN401 - it is whatever the file assigned
    if isinstance(recipe, (Recipe, FileRecipe)):
        if not re.fullmatch(NAME_PATTERN, str(recipe.name)):
            raise RecipeError(
                f"'{source}' names its model {recipe.name!r}; allowed are 1 to 64 of a-z, 0-9, '.', '_' and '-', "
                "beginning with a letter or digit"
            )
        return recipe
    kind = FileRecipe if hasattr(recipe, "draft") else Recipe
    wanted = sorted(name for name in _asked(kind) if not hasattr(recipe, name))
    raise RecipeError(f"'{source}' must assign RECIPE an object with {', '.join(wanted)} (see variants/recipe.py)")


def _asked(protocol: type) -> set[str]:
    """Return the names of what a protocol and those that it extends ask for."""
    asked: set[str] = set()
    for part in protocol.__mro__:
        if part.__module__ == protocol.__module__:
            asked |= {name for name in (*part.__dict__, *part.__annotations__) if not name.startswith("_")}
    return asked
