"""The making half of a build: from a recipe to ONNX files, each step kept on disk when it is done.

A torch recipe, without ``pruned`` where its plan has no pruning::

    train full -+-> export -> full ----------------------> reduce -> quantized
                +-> teach -+-> prune  -> export -> pruned ----> reduce -> pruned-quantized
                           +-> distil -> export -> distilled -> reduce -> distilled-quantized, for each student

A recipe that brings files, whose full file is the teacher where there is a student::

    full, and other files (pruned) -> reduce -> quantized, ...
      +-> teach -> distil -> export -> distilled -> reduce -> distilled-quantized

``reducing`` gives a float file its forms of lower precision. These two modules and ``measuring`` are the only ones
beside ``build`` that know the steps; steps do not know each other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch

from variants.distillation import distil, make_lesson
from variants.errors import LeftOut, RecipeError, naming_step
from variants.evidence import Parity
from variants.export import export_onnx, measure_parity
from variants.ladder import rungs_of
from variants.pruning import fitting_steps, prune
from variants.recipe import brings_files, is_taught, is_trained, students_of
from variants.reducing import make_download, quantize_rung, reduce
from variants.residual import leave_out
from variants.runtime import open_session, run_session
from variants.sparsity import sparsify
from variants.tracing import OPSET
from variants.training import train_full
from variants.weights import dump_weights, load_weights
from variants.workshop import Made, record_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.fitting import Lesson
    from variants.ladder import Rung
    from variants.manifest import Step, Tier
    from variants.recipe import Draft, FileRecipe, Pruning, Recipe, Taught
    from variants.workshop import Workshop

    Fit = Callable[[Callable[[], None]], torch.nn.Module]


_TIERS: Final[dict[str, Tier]] = {"train": "full", "sparsify": "full", "prune": "pruned", "distil": "distilled"}
"""What each step that fits weights makes."""


def make_variants(shop: Workshop) -> tuple[Made, ...]:
    """Return all variants, full first, each after its parent.

    Raises:
        RecipeError: The recipe has neither a network to train nor files.
    """
    recipe = shop.recipe
    if brings_files(recipe):
        return _make_files(shop, recipe)
    if is_trained(recipe):
        return _make_networks(shop, recipe)
    raise RecipeError(f"recipe '{recipe.name}' has neither make_model nor draft (see variants/recipe.py)")


def _make_networks(shop: Workshop, recipe: Recipe) -> tuple[Made, ...]:
    """Train the full model, and make what derives from it."""
    school = _School(shop, recipe, lambda: full.model)
    full = _train(school, recipe)
    made = [_export(school, full, None)]
    if rungs := rungs_of(recipe.plan):
        return made[0], *(_climb(school, full, made[0], rung) for rung in rungs)
    if recipe.plan.pruning is not None:
        made.append(_export(school, _prune(school, full, recipe.plan.pruning), made[0]))
    students = [_teach(school, name, made[0]) for name in students_of(recipe)]
    forms = [form for one in made for form in reduce(shop, one)]
    smaller = [one for student in students for one in (student, *reduce(shop, student))]
    return *made, *forms, *smaller, *_download(school, full, made[0])


def _make_files(shop: Workshop, recipe: FileRecipe) -> tuple[Made, ...]:
    """Take the recipe's files, and make what derives from them."""
    made: dict[str, Made] = {}
    for draft in recipe.draft(shop.parts, shop.seed):
        try:
            made[draft.name] = _finish(shop, draft, None if draft.parent is None else made[draft.parent])
        except LeftOut as error:
            shop.progress.note(f"left out: {draft.name}: {error}")
    full = next(iter(made.values()))
    if is_taught(recipe):
        school = _School(shop, recipe, lambda: _FileTeacher(full.file))
        made |= {name: _teach(school, name, full) for name in students_of(recipe)}
    plan = recipe.plan.download
    packed = [] if plan is None else [make_download(shop, full, plan, None)]
    return *made.values(), *(form for one in made.values() for form in reduce(shop, one)), *packed


@dataclass(frozen=True, slots=True)
class Teacher:
    """The trained full model, its file, and how it gives its answers to learn from; it is asked once."""

    model: torch.nn.Module
    made: Made
    give_lesson: Callable[[], Lesson]

    @property
    def lesson(self) -> Lesson:
        """The answers."""
        return self.give_lesson()


def make_teacher(shop: Workshop, recipe: Recipe) -> Teacher:
    """Return the full model, trained now or in an earlier attempt, and the lesson that it gives."""
    school = _School(shop, recipe, lambda: full.model)
    full = _train(school, recipe)
    return Teacher(full.model, _export(school, full, None), lambda: school.answers)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A torch model, the variant that it is to be, and how it came to be."""

    name: str
    tier: Tier
    model: torch.nn.Module
    step: Step
    train_s: float


class _FileTeacher(torch.nn.Module):
    """An ONNX file that answers like a torch model."""

    def __init__(self, file: bytes) -> None:
        super().__init__()
        self._session = open_session(file)  # once: a large file takes longer to open than to run

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the file's first output (N, ...)."""
        return torch.from_numpy(run_session(self._session, inputs.numpy()))


@dataclass(frozen=True)
class _School:
    """Where students learn; the teacher is asked for only by steps that are not finished yet."""

    shop: Workshop
    recipe: Taught
    teacher: Callable[[], torch.nn.Module]

    @cached_property
    def lesson(self) -> Lesson:
        """The teacher's answers."""
        shop, copies = self.shop, self.recipe.plan.teaching.copies
        with shop.progress.task("teach", copies) as advance, naming_step("teach"):
            return make_lesson(self.teacher(), self.recipe, shop.parts.train, shop.seed + 1, advance)

    @property
    def answers(self) -> Lesson:
        """The lesson without features, whose layers are a student's."""
        return replace(self.lesson, guide=None)

    def fit(self, variant: str, step: Step, total: int, make: Fit) -> _Fitted:
        """Return what ``make`` fits, now or in an earlier attempt; it calls its argument ``total`` times."""
        name = f"{step.name} {variant}"

        def run() -> bytes:
            if step.name != "train":
                _ = self.lesson  # has its own progress bar, which must end before the next begins
            with self.shop.progress.task(name, total) as advance, naming_step(name):
                return dump_weights(make(advance))

        kept = self.shop.cache.get_or_make(name.replace(" ", "-"), run)
        with naming_step(f"restore {variant}"):
            return _Fitted(
                variant, _TIERS[step.name], load_weights(self._blank(variant), kept.payload), step, kept.took_s
            )

    def _blank(self, variant: str) -> torch.nn.Module:
        """Return an untrained network of a variant's kind; stored weights set its widths."""
        recipe, students = self.recipe, students_of(self.recipe)
        if variant not in students and is_trained(recipe):
            left_out = {rung.name: rung.without for rung in rungs_of(recipe.plan)}
            return leave_out(recipe.make_model(), left_out.get(variant, ()))
        return students[variant]()


def _train(school: _School, recipe: Recipe) -> _Fitted:
    training, shop = recipe.plan.training, school.shop
    step = record_step("train", asdict(training), shop.seed)
    return school.fit("full", step, training.steps, lambda advance: train_full(recipe, shop.parts, shop.seed, advance))


def _prune(school: _School, full: _Fitted, plan: Pruning) -> _Fitted:
    seed = school.shop.seed + 2
    step = record_step("prune", {**asdict(plan), "teaching": asdict(school.recipe.plan.teaching)}, seed)
    total = fitting_steps(plan)
    return school.fit("pruned", step, total, lambda advance: prune(full.model, school.answers, plan, seed, advance))


def _climb(school: _School, full: _Fitted, parent: Made, rung: Rung) -> Made:
    """Return one tier of a ladder; its steps name what the search knew of it."""
    shop = school.shop
    found = record_step("search", asdict(rung.found), shop.seed)
    if rung.pruning is None:
        made = quantize_rung(shop, parent, rung.name)
        return replace(made, steps=(found, *made.steps))
    slim = _export(school, _slim(school, full, rung, rung.pruning), parent)
    if not rung.is_quantized:
        return replace(slim, steps=(found, *slim.steps))
    made = quantize_rung(shop, slim, rung.name)
    steps, build_s = (found, *slim.steps, *made.steps), slim.build_s + made.build_s
    return replace(made, parent=parent, steps=steps, train_s=slim.train_s, build_s=build_s)


def _slim(school: _School, full: _Fitted, rung: Rung, plan: Pruning) -> _Fitted:
    """Return the full model without the tier's blocks, pruned to its widths and fitted."""
    seed = school.shop.seed + 2
    teaching = asdict(school.recipe.plan.teaching)
    step = record_step("prune", {**asdict(plan), "without": rung.without, "teaching": teaching}, seed)
    total = fitting_steps(plan)

    def fit(advance: Callable[[], None]) -> torch.nn.Module:
        return prune(leave_out(full.model, rung.without), school.answers, plan, seed, advance)

    return school.fit(rung.name, step, total, fit)


def _download(school: _School, full: _Fitted, parent: Made) -> list[Made]:
    """Return the packed form of the full model, fitted with its zeros where the plan has a training for it."""
    shop, plan = school.shop, school.recipe.plan.download
    if plan is None:
        return []
    if plan.training is None:
        return [make_download(shop, parent, plan, None)]
    seed = shop.seed + 4
    step = record_step("sparsify", asdict(plan), seed)
    fitted = school.fit(
        "full",
        step,
        plan.training.steps,
        lambda advance: sparsify(full.model, school.answers, plan, seed, advance),
    )
    example = shop.parts.validation.inputs
    kept = shop.keep("export sparse", 1, lambda _: export_onnx(fitted.model, school.recipe, example))
    return [make_download(shop, parent, plan, (kept.payload, step))]


def _teach(school: _School, name: str, full: Made) -> Made:
    """Return a student of the full model."""
    plan, seed = school.recipe.plan, school.shop.seed + 3
    step = record_step("distil", {**asdict(plan.distillation), "teaching": asdict(plan.teaching)}, seed)
    fitted = school.fit(
        name,
        step,
        plan.distillation.steps,
        lambda advance: distil(students_of(school.recipe)[name], plan.distillation, school.lesson, seed, advance),
    )
    return _export(school, fitted, full)


def _export(school: _School, fitted: _Fitted, parent: Made | None) -> Made:
    shop, name = school.shop, fitted.name
    example = shop.parts.validation.inputs
    kept = shop.keep(f"export {name}", 1, lambda _: export_onnx(fitted.model, school.recipe, example))
    with naming_step(f"parity {name}"):
        parity = measure_parity(fitted.model, kept.payload, shop.parts.test.inputs, shop.scoring)
    return Made(
        name=name,
        tier=fitted.tier,
        file=kept.payload,
        parent=parent,
        steps=(fitted.step, record_step("export", {"opset": OPSET}, shop.seed)),
        parity=parity,
        train_s=fitted.train_s,
        build_s=fitted.train_s + kept.took_s,
    )


def _finish(shop: Workshop, draft: Draft, parent: Made | None) -> Made:
    """Have a recipe make its file, or take it from an earlier attempt."""

    def make(advance: Callable[[], None]) -> bytes:
        ready = draft.make()
        advance()
        parity = None if ready.parity is None else ready.parity.model_dump()
        return json.dumps([parity, ready.chosen]).encode() + b"\n" + ready.file

    kept = shop.keep(f"{draft.step} {draft.name}", 1, make)
    head, _, file = kept.payload.partition(b"\n")
    parity, chosen = json.loads(head)
    return Made(
        name=draft.name,
        tier=draft.tier,
        file=file,
        parent=parent,
        steps=(record_step(draft.step, {**draft.parameters, **chosen}, shop.seed),),
        parity=None if parity is None else Parity.model_validate(parity),
        train_s=kept.took_s,
        build_s=kept.took_s,
    )
