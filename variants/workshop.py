"""Where variants are made: the recipe, its data, what was finished before; and the orders, one for each variant."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from variants.errors import LeftOut, naming_step
from variants.evidence import Parity
from variants.manifest import ENDINGS, Step
from variants.progress import show_step
from variants.recipe import Ready
from variants.scoring import scoring_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from variants.cache import Kept, StepCache
    from variants.evidence import Cost
    from variants.manifest import Tier
    from variants.progress import Progress
    from variants.recipe import AnyRecipe, DataParts
    from variants.scoring import Scoring

LEFT_OUT = "left_out"


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
    cost: Cost
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
class Order:
    """One variant to make of its ``parent`` (``None`` for full), as far as its model has such a form.

    ``prepare`` does what several orders need, and keeps it on disk: all of them may be filled beside each other after
    it. Those that have it fit weights, and take longest.
    """

    name: str
    parent: str | None
    make: Callable[[Made | None], Made | None]
    prepare: Callable[[], object] | None = None

    def fill(self, made: Mapping[str, Made]) -> Made | None:
        """Return the variant, ``None`` where it or its parent was left out; ``made`` holds its parent, if there is one.

        Every step of it is kept on disk when it is done, so that filling an order once more gives the same at once.
        """
        if self.parent is not None and self.parent not in made:
            return None
        try:
            return self.make(None if self.parent is None else made[self.parent])
        except LeftOut:
            return None


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
            with show_step(self.progress, name, total) as advance, naming_step(name):
                return make(advance)

        return self.cache.get_or_make(name.replace(" ", "-"), run)

    def keep_file(self, name: str, total: int, make: Callable[[Callable[[], None]], Ready]) -> tuple[Ready, Kept]:
        """Return the file that ``make`` made, in this or an earlier attempt, and what making it took.

        Raises:
            LeftOut: ``make`` did, in this or an earlier attempt; a note told it then.
        """

        def run(advance: Callable[[], None]) -> bytes:
            try:
                ready = make(advance)
            except LeftOut as error:
                self.progress.note(f"left out: {error}")
                return json.dumps({LEFT_OUT: str(error)}).encode() + b"\n"
            parity = None if ready.parity is None else ready.parity.model_dump()
            return json.dumps({"parity": parity, "chosen": ready.chosen}).encode() + b"\n" + ready.file

        kept = self.keep(name, total, run)
        head, _, file = kept.payload.partition(b"\n")
        told: dict[str, Any] = json.loads(head)
        if LEFT_OUT in told:
            raise LeftOut(told[LEFT_OUT])
        parity = None if told["parity"] is None else Parity.model_validate(told["parity"])
        return Ready(file, parity, told["chosen"]), kept


def record_step(name: str, parameters: dict[str, Any], seed: int) -> Step:
    """Return the record of a step, its parameters as JSON has them, so that it equals itself when read back."""
    return Step(name=name, parameters=json.loads(json.dumps(parameters)), seed=seed)
