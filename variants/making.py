"""The making half of a build: from a recipe to ONNX files, each step kept on disk when it is done.

A torch recipe, without ``pruned`` where its plan has no pruning::

    train full -+-> export -> full ----------------------> reduce -> quantized
                +-> teach -+-> prune  -> export -> pruned ----> reduce -> pruned-quantized
                           +-> distil -> export -> distilled -> reduce -> distilled-quantized, for each student

A recipe that brings files, whose full file is the teacher where there is a student::

    full, and other files (pruned) -> reduce -> quantized, ...
      +-> teach -> distil -> export -> distilled -> reduce -> distilled-quantized

First come the orders, one for each variant; they are then filled one after another. What needs nothing of each other
may be made before that, by several processes (``crew``): filling finds every step done. ``schooling`` fits weights,
``reducing`` gives a float file its forms of lower precision. These modules and ``measuring`` are the only ones beside
``build`` that know the steps; steps do not know each other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from variants.crew import Site, work_ahead
from variants.data import store_parts
from variants.errors import LeftOut, RecipeError, naming_step
from variants.export import export_onnx, measure_parity
from variants.ladder import rungs_of
from variants.recipe import Ready, brings_files, is_taught, is_trained, students_of
from variants.reducing import make_download, order_forms, quantize_rung, quantize_tuned
from variants.schooling import PRUNED, FileTeacher, School, open_school, teach
from variants.tracing import OPSET
from variants.workshop import Made, Order, record_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from variants.fitting import Lesson
    from variants.ladder import Rung
    from variants.recipe import AnyRecipe, Draft, FileRecipe, Recipe
    from variants.schooling import Fitted, TrainingSchool
    from variants.workshop import Workshop


@dataclass(frozen=True, slots=True)
class Jobs:
    """How many processes make variants beside each other, and how each of them gets the recipe (to be pickled)."""

    count: int
    load: Callable[[], AnyRecipe]


def make_variants(shop: Workshop, jobs: Jobs | None = None) -> tuple[Made, ...]:
    """Return all variants, full first, each after its parent; with ``jobs`` what can be is made beside each other.

    Raises:
        RecipeError: The recipe has neither a network to train nor files.
    """
    orders = order_variants(shop)
    if jobs is not None and jobs.count > 1:
        _make_ahead(shop, orders, jobs)
    made: dict[str, Made] = {}
    for order in orders:
        one = order.fill(made)
        if one is not None:
            made[order.name] = one
    return tuple(made.values())


def order_variants(shop: Workshop) -> tuple[Order, ...]:
    """Return an order for every variant that the recipe asks for, full first, each after its parent.

    Raises:
        RecipeError: The recipe has neither a network to train nor files.
    """
    recipe = shop.recipe
    if brings_files(recipe):
        return tuple(_order_files(shop, recipe))
    if is_trained(recipe):
        return tuple(_order_networks(shop, recipe))
    raise RecipeError(f"recipe '{recipe.name}' has neither make_model nor draft (see variants/recipe.py)")


def _make_ahead(shop: Workshop, orders: tuple[Order, ...], jobs: Jobs) -> None:
    """Have a crew finish the steps of all orders; what they have in common is done before, by this process."""
    full, *others = orders
    made = full.fill({})
    if made is None:
        return
    for order in others:
        if order.prepare is not None:
            order.prepare()
    rows = shop.cache.folder / "rows"
    store_parts(shop.parts, rows)
    site = Site(jobs.load, rows, shop.seed, shop.cache.folder, order_variants)
    work_ahead(site, others, jobs.count, shop.progress)


def _order_networks(shop: Workshop, recipe: Recipe) -> Iterator[Order]:
    """Yield the full model, and what derives from it."""
    school, plan = open_school(shop, recipe), recipe.plan
    yield Order("full", None, lambda _: _export(school, school.full, None))
    if rungs := rungs_of(plan):
        yield from (Order(rung.name, "full", partial(_climb, school, rung), school.ask) for rung in rungs)
        return
    if (pruning := plan.pruning) is not None:
        yield Order(PRUNED, "full", lambda full: _export(school, school.prune(PRUNED, pruning), full), school.ask)
    yield from order_forms(shop, "full", "full")
    yield from _order_tuned(school, "full", lambda: school.full)
    if pruning is not None:
        yield from order_forms(shop, PRUNED, "pruned")
        yield from _order_tuned(school, PRUNED, partial(school.prune, PRUNED, pruning))
    for name in students_of(recipe):
        yield _order_student(school, name)
        yield from order_forms(shop, name, "distilled")
        yield from _order_tuned(school, name, partial(teach, school, name))
    if (packing := plan.download) is not None:
        yield Order("download", "full", partial(_download, school), school.ask if packing.training else None)


def _order_files(shop: Workshop, recipe: FileRecipe) -> Iterator[Order]:
    """Yield the recipe's files, and what derives from them."""
    with naming_step("draft"):
        drafts = list(recipe.draft(shop.parts, shop.seed))
    full = Order(drafts[0].name, None, partial(_finish, shop, drafts[0]))
    yield full
    yield from (Order(draft.name, draft.parent, partial(_finish, shop, draft)) for draft in drafts[1:])
    students: list[str] = []
    if (reducing := recipe.plan.quantization) is not None and reducing.tuning is not None and not is_taught(recipe):
        raise RecipeError(f"recipe '{recipe.name}' has a plan with a tuning for int8, and no network that it fits")
    if is_taught(recipe):
        school = School(shop, recipe, lambda: FileTeacher(_filled(full).file))
        students = list(students_of(recipe))
        yield from (_order_student(school, name) for name in students)
    for draft in drafts:
        yield from order_forms(shop, draft.name, draft.tier)
    for name in students:
        yield from order_forms(shop, name, "distilled")
        yield from _order_tuned(school, name, partial(teach, school, name))
    if (plan := recipe.plan.download) is not None:
        yield Order("download", full.name, lambda made: make_download(shop, _present(made), plan, None))


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
    school = open_school(shop, recipe)
    return Teacher(school.full.model, _export(school, school.full, None), lambda: school.answers)


def _present(made: Made | None) -> Made:
    """Return a parent, which an order has unless it is full's."""
    assert made is not None  # noqa: S101 - Order.fill makes nothing of a parent that is not there
    return made


def _filled(full: Order) -> Made:
    """Return the full file, which is on disk by then."""
    return _present(full.fill({}))


def _order_student(school: School, name: str) -> Order:
    return Order(name, "full", lambda full: _export(school, teach(school, name), full), school.ask)


def _order_tuned(school: School, name: str, find: Callable[[], Fitted]) -> Iterator[Order]:
    """Yield an order for the int8 form of a network's tuned weights, where the plan has a tuning."""
    plan = school.recipe.plan.quantization
    if plan is None or (training := plan.tuning) is None:
        return
    own = "quantized-tuned" if name == "full" else f"{name}-quantized-tuned"

    def make(parent: Made | None) -> Made | None:
        return _reduce_tuned(school, school.tune(find(), training, plan.preset), own, _present(parent))

    yield Order(own, name, make, school.ask)


def _reduce_tuned(school: School, fitted: Fitted, name: str, parent: Made) -> Made | None:
    """Return the int8 form, called ``name``, of a network that was fitted on for it; ``parent`` is it before that."""
    shop = school.shop
    example = shop.parts.validation.inputs
    kept = shop.keep(f"export {name}", 1, lambda _: export_onnx(fitted.model, school.recipe, example))
    made = quantize_tuned(shop, parent, kept.payload, name)
    if made is None:
        return None
    return replace(made, steps=(fitted.step, *made.steps), cost=fitted.cost + kept.cost + made.cost)


def _climb(school: TrainingSchool, rung: Rung, full: Made | None) -> Made:
    """Return one tier of a ladder; its steps name what the search knew of it."""
    shop, parent = school.shop, _present(full)
    found = record_step("search", asdict(rung.found), shop.seed)
    if rung.pruning is None:
        made = quantize_rung(shop, parent, rung.name)
        return replace(made, steps=(found, *made.steps))
    slim = _export(school, school.prune(rung.name, rung.pruning), parent)
    if not rung.is_quantized:
        return replace(slim, steps=(found, *slim.steps))
    made = quantize_rung(shop, slim, rung.name)
    return replace(made, parent=parent, steps=(found, *slim.steps, *made.steps), cost=slim.cost + made.cost)


def _download(school: TrainingSchool, full: Made | None) -> Made | None:
    """Return the packed form of the full model, fitted with its zeros where the plan has a training for it."""
    shop, plan, parent = school.shop, school.recipe.plan.download, _present(full)
    if plan is None or plan.training is None:
        return None if plan is None else make_download(shop, parent, plan, None)
    fitted = school.sparsify(plan, plan.training.steps)
    example = shop.parts.validation.inputs
    kept = shop.keep("export sparse", 1, lambda _: export_onnx(fitted.model, school.recipe, example))
    return make_download(shop, parent, plan, (kept.payload, fitted.step))


def _export(school: School, fitted: Fitted, parent: Made | None) -> Made:
    shop, name = school.shop, fitted.name

    def make(_: Callable[[], None]) -> Ready:
        file = export_onnx(fitted.model, school.recipe, shop.parts.validation.inputs)
        with naming_step(f"parity {name}"):
            return Ready(file, measure_parity(fitted.model, file, shop.parts.test.inputs, shop.scoring))

    ready, kept = shop.keep_file(f"export {name}", 1, make)
    return Made(
        name=name,
        tier=fitted.tier,
        file=ready.file,
        parent=parent,
        steps=(fitted.step, record_step("export", {"opset": OPSET}, shop.seed)),
        parity=ready.parity,
        cost=fitted.cost + kept.cost,
    )


def _finish(shop: Workshop, draft: Draft, parent: Made | None) -> Made:
    """Have a recipe make its file, or take it from an earlier attempt."""

    def make(_: Callable[[], None]) -> Ready:
        try:
            return draft.make()
        except LeftOut as error:
            raise LeftOut(f"{draft.name}: {error}") from error

    ready, kept = shop.keep_file(f"{draft.step} {draft.name}", 1, make)
    return Made(
        name=draft.name,
        tier=draft.tier,
        file=ready.file,
        parent=parent,
        steps=(record_step(draft.step, {**draft.parameters, **ready.chosen}, shop.seed),),
        parity=ready.parity,
        cost=kept.training_cost,
    )
