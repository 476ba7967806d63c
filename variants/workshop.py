"""Where variants are made: the recipe, its data, what was finished before, and what has been made so far."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from variants.errors import naming_step
from variants.manifest import ENDINGS, Step
from variants.scoring import scoring_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.cache import Kept, StepCache
    from variants.evidence import Parity
    from variants.manifest import Tier
    from variants.progress import Progress
    from variants.recipe import AnyRecipe, DataParts
    from variants.scoring import Scoring


@dataclass(frozen=True, slots=True)
class Made:
    """One variant as made, before it is measured; ``parity`` is ``None`` for a file that was trained elsewhere.

    ``file`` is what runs; ``packed`` is what is stored in its place, where that is another form of it.
    """

    name: str
    tier: Tier
    file: bytes
    parent: Made | None
    steps: tuple[Step, ...]
    parity: Parity | None
    train_s: float
    build_s: float
    is_calibrated: bool = False
    packed: bytes | None = None

    @property
    def stored(self) -> bytes:
        """What is published."""
        return self.file if self.packed is None else self.packed

    @property
    def stored_name(self) -> str:
        """What the published file is called."""
        return f"{self.name}{ENDINGS[self.packed is not None]}"


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every making step needs: the recipe, its data, the seed, finished steps, and whom to tell."""

    recipe: AnyRecipe
    parts: DataParts
    seed: int
    cache: StepCache
    progress: Progress

    @property
    def scoring(self) -> Scoring:
        """What the recipe counts as right."""
        return scoring_of(self.recipe)

    def keep(self, name: str, total: int, make: Callable[[Callable[[], None]], bytes]) -> Kept:
        """Return what ``make`` returned in this or an earlier attempt; it calls its argument ``total`` times."""

        def run() -> bytes:
            with self.progress.task(name, total) as advance, naming_step(name):
                return make(advance)

        return self.cache.get_or_make(name.replace(" ", "-"), run)


def record_step(name: str, parameters: dict[str, Any], seed: int) -> Step:
    """Return the record of a step, its parameters as JSON has them, so that it equals itself when read back."""
    return Step(name=name, parameters=json.loads(json.dumps(parameters)), seed=seed)
