"""The making half of a build: from a recipe to six ONNX files, each step kept on disk when it is done.

::

    train full -+-> export -> full ----------------------> quantize -> quantized
                +-> teach -+-> prune  -> export -> pruned ----> quantize -> pruned-quantized
                           +-> distil -> export -> distilled -> quantize -> distilled-quantized

This module and ``measuring`` are the only ones beside ``build`` that know the steps; steps do not know each other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from variants.distillation import distil, make_lesson
from variants.errors import naming_step
from variants.export import OPSET, export_onnx, measure_parity
from variants.manifest import Step
from variants.pruning import prune
from variants.quantization import quantize
from variants.training import train_full
from variants.weights import dump_weights, load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from variants.cache import Kept, StepCache
    from variants.evidence import Parity
    from variants.fitting import Lesson
    from variants.manifest import Tier
    from variants.progress import Progress
    from variants.recipe import DataParts, Recipe


@dataclass(frozen=True, slots=True)
class Made:
    """One variant as made, before it is measured."""

    tier: Tier
    file: bytes
    parent: Made | None
    steps: tuple[Step, ...]
    parity: Parity
    train_s: float
    build_s: float


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A torch model and how it came to be."""

    tier: Tier
    model: torch.nn.Module
    step: Step
    train_s: float


@dataclass(frozen=True)
class Workshop:
    """What every making step needs: the recipe, its data, the seed, finished steps, and whom to tell."""

    recipe: Recipe
    parts: DataParts
    seed: int
    cache: StepCache
    progress: Progress

    @cached_property
    def full(self) -> _Fitted:
        """The trained full model."""
        training = self.recipe.plan.training

        def make(advance: Callable[[], None]) -> torch.nn.Module:
            return train_full(self.recipe, self.parts, self.seed, advance)

        step = _step("train", asdict(training), self.seed)
        return self._fit("full", step, training.steps, make)

    @cached_property
    def lesson(self) -> Lesson:
        """The full model's answers; asked for only by steps that are not finished yet."""
        copies = self.recipe.plan.teaching.copies
        with self.progress.task("teach", copies) as advance, naming_step("teach"):
            return make_lesson(self.full.model, self.recipe, self.parts.train, self.seed + 1, advance)

    @cached_property
    def pruned(self) -> _Fitted:
        """The full model with channels removed."""
        plan = self.recipe.plan.pruning

        def make(advance: Callable[[], None]) -> torch.nn.Module:
            return prune(self.full.model, self.lesson, plan, self.seed + 2, advance)

        parameters = {**asdict(plan), "teaching": asdict(self.recipe.plan.teaching)}
        step = _step("prune", parameters, self.seed + 2)
        return self._fit("pruned", step, plan.iterations * plan.training.steps, make)

    @cached_property
    def distilled(self) -> _Fitted:
        """The student."""
        training = self.recipe.plan.distillation

        def make(advance: Callable[[], None]) -> torch.nn.Module:
            return distil(self.recipe, self.lesson, self.seed + 3, advance)

        parameters = {**asdict(training), "teaching": asdict(self.recipe.plan.teaching)}
        step = _step("distil", parameters, self.seed + 3)
        return self._fit("distilled", step, training.steps, make)

    def _fit(
        self, tier: Tier, step: Step, total: int, make: Callable[[Callable[[], None]], torch.nn.Module]
    ) -> _Fitted:
        def fit() -> bytes:
            if step.name != "train":
                _ = self.lesson  # has its own progress bar, which must end before the next begins
            name = f"{step.name} {tier}"
            with self.progress.task(name, total) as advance, naming_step(name):
                return dump_weights(make(advance))

        kept = self.cache.get_or_make(f"{step.name}-{tier}", fit)
        with naming_step(f"restore {tier}"):
            shape = self.recipe.make_student() if tier == "distilled" else self.recipe.make_model()
            return _Fitted(tier, load_weights(shape, kept.payload), step, kept.took_s)


def make_variants(shop: Workshop) -> tuple[Made, ...]:
    """Return all six variants, full first, each after its parent."""
    full = _export(shop, shop.full, None)
    pruned = _export(shop, shop.pruned, full)
    distilled = _export(shop, shop.distilled, full)
    return (
        full,
        pruned,
        _quantize(shop, "quantized", shop.full.model, full),
        _quantize(shop, "pruned-quantized", shop.pruned.model, pruned),
        distilled,
        _quantize(shop, "distilled-quantized", shop.distilled.model, distilled),
    )


def _export(shop: Workshop, fitted: _Fitted, parent: Made | None) -> Made:
    example = shop.parts.validation.inputs
    kept = _keep(shop, f"export {fitted.tier}", 1, lambda _: export_onnx(fitted.model, shop.recipe, example))
    return Made(
        tier=fitted.tier,
        file=kept.payload,
        parent=parent,
        steps=(fitted.step, _step("export", {"opset": OPSET}, shop.seed)),
        parity=_check_parity(shop, fitted.tier, fitted.model, kept.payload),
        train_s=fitted.train_s,
        build_s=fitted.train_s + kept.took_s,
    )


def _quantize(shop: Workshop, tier: Tier, model: torch.nn.Module, parent: Made) -> Made:
    plan, parts = shop.recipe.plan.quantization, shop.parts

    def make(advance: Callable[[], None]) -> bytes:
        file, chosen = quantize(parent.file, parts.calibration.inputs, parts.validation.inputs, plan, advance)
        return json.dumps(chosen).encode() + b"\n" + file

    kept = _keep(shop, f"quantize {tier}", len(plan.methods), make)
    head, _, file = kept.payload.partition(b"\n")
    chosen: dict[str, Any] = json.loads(head)
    return Made(
        tier=tier,
        file=file,
        parent=parent,
        steps=(_step("quantize", {**asdict(plan), **chosen}, shop.seed),),
        parity=_check_parity(shop, tier, model, file),
        train_s=0.0,
        build_s=kept.took_s,
    )


def _check_parity(shop: Workshop, tier: Tier, model: torch.nn.Module, file: bytes) -> Parity:
    with naming_step(f"parity {tier}"):
        return measure_parity(model, file, shop.parts.test.inputs)


def _keep(shop: Workshop, name: str, total: int, make: Callable[[Callable[[], None]], bytes]) -> Kept:
    def run() -> bytes:
        with shop.progress.task(name, total) as advance, naming_step(name):
            return make(advance)

    return shop.cache.get_or_make(name.replace(" ", "-"), run)


def _step(name: str, parameters: dict[str, Any], seed: int) -> Step:
    """Return the record of a step, its parameters as JSON has them, so that it equals itself when read back."""
    return Step(name=name, parameters=json.loads(json.dumps(parameters)), seed=seed)
