"""One tiny build that many tests look at, and a listener that can stop a build where a test wants."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from variants.build import BuildResult, build_model
from variants.manifest import CascadeManifest
from variants.recipe import Recipe
from variants.sources.recipes import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from variants.manifest import ModelManifest

TINY = Path(__file__).with_name("tiny_recipe.py")


class Stopped(BaseException):
    """Stands for Ctrl-C or worse: nothing in a build may catch it."""


class Listener:
    """Keeps the names of the tasks that began; stops the build at the task or note that begins with ``stop_at``."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.tasks: list[str] = []
        self._stop_at = stop_at

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        assert total >= 1
        self._hear(name)
        self.tasks.append(name)
        yield lambda: None

    def note(self, text: str) -> None:
        self._hear(text)

    def _hear(self, text: str) -> None:
        if self._stop_at is not None and text.startswith(self._stop_at):
            raise Stopped(text)


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    recipe = load_recipe(str(TINY))
    assert isinstance(recipe, Recipe)
    return recipe


@pytest.fixture(scope="session")
def built(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build_model(tiny, tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def manifest(built: BuildResult) -> ModelManifest:
    return built.manifest


@pytest.fixture(scope="session")
def cascade() -> CascadeManifest:
    """A cascade of two variants that every build publishes."""
    figures = {"calibrated_ratio": 0.1, "escalated_ratio": 0.125, "accuracy": 0.805, "low": 0.75, "high": 0.85}
    return CascadeManifest(variant="distilled", escalate_to="full", margin=1.5, **figures, lost=2, gained=11)


@pytest.fixture(scope="session")
def cascaded(manifest: ModelManifest, cascade: CascadeManifest) -> ModelManifest:
    """The tiny build's manifest with two cascades, whatever its own were."""
    other = cascade.model_copy(update={"escalate_to": "quantized", "accuracy": 0.8, "margin": 0.5})
    return manifest.model_copy(update={"cascades": (other, cascade)})


@pytest.fixture(scope="session")
def listener() -> type[Listener]:
    return Listener


@pytest.fixture(scope="session")
def stopped() -> type[BaseException]:
    return Stopped
