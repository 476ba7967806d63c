"""The steps that fit weights: a full model is trained, and networks derived from it learn from its answers.

The full model is restored and its answers are read from disk only by steps that are not finished yet. Other modules
see what comes out: a torch model of a variant, and the record of its step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch

from variants.distillation import ask_teacher, distil, make_lesson, vary
from variants.errors import naming_step
from variants.fitting import fit
from variants.ladder import rungs_of
from variants.progress import show_step
from variants.pruning import fitting_steps, prune
from variants.quantization_aware import tune
from variants.recipe import is_trained, students_of
from variants.residual import leave_out
from variants.runtime import open_session, run_session
from variants.shortening import choose_blocks
from variants.sparsity import sparsify
from variants.training import train_full
from variants.weights import dump_arrays, dump_weights, load_arrays, load_weights
from variants.workshop import record_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.cache import Kept
    from variants.evidence import Cost
    from variants.fitting import Lesson
    from variants.manifest import Step, Tier
    from variants.plans import Download, Pruning, Training
    from variants.presets import Preset
    from variants.recipe import Recipe, Taught
    from variants.workshop import Workshop

    Fit = Callable[[Callable[[], None]], torch.nn.Module]


_TIERS: Final[dict[str, Tier]] = {"train": "full", "sparsify": "full", "prune": "pruned", "distil": "distilled"}
"""What each step that fits weights makes; ``tune`` leaves a network what it is."""
PRUNED: Final = "pruned"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A torch model, the variant that it is to be, and how it came to be."""

    name: str
    tier: Tier
    model: torch.nn.Module
    step: Step
    cost: Cost


class FileTeacher(torch.nn.Module):
    """An ONNX file that answers like a torch model."""

    def __init__(self, file: bytes) -> None:
        super().__init__()
        self._session = open_session(file)  # once: a large file takes longer to open than to run

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the file's first output (N, ...)."""
        return torch.from_numpy(run_session(self._session, inputs.numpy()))


@dataclass(frozen=True)
class School:
    """Where students learn from the network that ``teacher`` returns."""

    shop: Workshop
    recipe: Taught
    teacher: Callable[[], torch.nn.Module]

    def ask(self) -> Kept:
        """Return the teacher's answers, as arrays on disk: it is asked once, whoever learns from it."""
        shop, teaching = self.shop, self.recipe.plan.teaching
        seed = shop.seed + 1

        def make(advance: Callable[[], None]) -> bytes:
            copies = vary(self.recipe, shop.parts.train, seed)
            return dump_arrays(ask_teacher(self.teacher(), copies, teaching, seed, advance))

        return shop.keep("teach", teaching.copies, make)

    @cached_property
    def lesson(self) -> Lesson:
        """The teacher's answers, and what they answer."""
        answers = load_arrays(self.ask().payload)
        with naming_step("teach"):
            return make_lesson(self.recipe, self.shop.parts.train, self.shop.seed + 1, answers)

    @property
    def answers(self) -> Lesson:
        """The lesson without features, whose layers are a student's."""
        return replace(self.lesson, guide=None)

    def fit(self, variant: str, step: Step, total: int, make: Fit) -> Fitted:
        """Return what ``make`` fits, now or in an earlier attempt; it calls its argument ``total`` times."""
        name = f"{step.name} {variant}"

        def run() -> bytes:
            if step.name != "train":
                _ = self.lesson  # a step of its own, whose time and memory are not this one's
            with show_step(self.shop.progress, name, total) as advance, naming_step(name):
                return dump_weights(make(advance))

        kept = self.shop.cache.get_or_make(name.replace(" ", "-"), run)
        with naming_step(f"restore {variant}"):
            model = load_weights(self._blank(variant), kept.payload)
        return Fitted(variant, _TIERS.get(step.name, "full"), model, step, kept.training_cost)

    def tune(self, fitted: Fitted, training: Training, preset: Preset) -> Fitted:
        """Return a network fitted on while its layers round as int8 does; in float again."""
        seed = self.shop.seed + 5
        step = record_step("tune", {**asdict(training), "preset": preset}, seed)

        def make(advance: Callable[[], None]) -> torch.nn.Module:
            return tune(fitted.model, preset, lambda rounding: fit(rounding, self.answers, training, seed, advance))

        return replace(self.fit(fitted.name, step, training.steps, make), tier=fitted.tier)

    def left_out(self, variant: str) -> tuple[str, ...]:  # noqa: ARG002 - where nothing is pruned, whatever it is
        """Return the blocks of the full model that a variant does without."""
        return ()

    def _blank(self, variant: str) -> torch.nn.Module:
        """Return an untrained network of a variant's kind; stored weights set its widths."""
        recipe, students = self.recipe, students_of(self.recipe)
        if variant not in students and is_trained(recipe):
            return leave_out(recipe.make_model(), self.left_out(variant))
        return students[variant]()


@dataclass(frozen=True)
class TrainingSchool(School):
    """A school whose teacher is trained in it."""

    recipe: Recipe

    @cached_property
    def full(self) -> Fitted:
        """The trained full model."""
        training, shop = self.recipe.plan.training, self.shop
        step = record_step("train", asdict(training), shop.seed)
        return self.fit(
            "full", step, training.steps, lambda advance: train_full(self.recipe, shop.parts, shop.seed, advance)
        )

    def left_out(self, variant: str) -> tuple[str, ...]:
        """Return what a search chose for a tier, or what matters least where the plan asks for fewer blocks."""
        chosen = {rung.name: rung.without for rung in rungs_of(self.recipe.plan)}
        plan = self.recipe.plan.pruning
        if variant in chosen or variant != PRUNED or plan is None or not plan.blocks:
            return chosen.get(variant, ())
        seed = self.shop.seed + 2

        def make(advance: Callable[[], None]) -> bytes:
            return json.dumps(choose_blocks(self.full.model, self.answers, plan.blocks, seed, advance)).encode()

        _ = self.ask()  # a step of its own
        return tuple(json.loads(self.shop.keep(f"choose blocks {variant}", plan.blocks, make).payload))

    def prune(self, name: str, plan: Pruning) -> Fitted:
        """Return the full model with fewer channels, and without the blocks that are left out."""
        seed, without = self.shop.seed + 2, self.left_out(name)
        teaching = asdict(self.recipe.plan.teaching)
        step = record_step("prune", {**asdict(plan), "without": without, "teaching": teaching}, seed)

        def fit(advance: Callable[[], None]) -> torch.nn.Module:
            return prune(leave_out(self.full.model, without), self.answers, plan, seed, advance)

        return self.fit(name, step, fitting_steps(plan), fit)

    def sparsify(self, plan: Download, steps: int) -> Fitted:
        """Return the full model fitted with its zeros."""
        seed = self.shop.seed + 4
        step = record_step("sparsify", asdict(plan), seed)
        return self.fit(
            "full", step, steps, lambda advance: sparsify(self.full.model, self.answers, plan, seed, advance)
        )


def open_school(shop: Workshop, recipe: Recipe) -> TrainingSchool:
    """Return the school of a recipe that trains its full model."""
    school: TrainingSchool = TrainingSchool(shop, recipe, lambda: school.full.model)
    return school


def teach(school: School, name: str) -> Fitted:
    """Return a student of the full model, by the name of its variant."""
    plan, seed = school.recipe.plan, school.shop.seed + 3
    step = record_step("distil", {**asdict(plan.distillation), "teaching": asdict(plan.teaching)}, seed)

    def fit(advance: Callable[[], None]) -> torch.nn.Module:
        return distil(students_of(school.recipe)[name], plan.distillation, school.lesson, seed, advance)

    return school.fit(name, step, plan.distillation.steps, fit)
