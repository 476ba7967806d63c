"""A search from beginning to end: train full, time shapes, score candidates, choose a ladder, have it built.

What a search finds is a plan. The ordinary build makes its tiers from it, with a longer fit than candidates got,
measures them on test rows as it measures every variant, and publishes them; the search looks at validation rows
alone. The trained full model is handed to that build, so that it is trained once.

The study, the timed shapes and the full model stay in ``<repository>/.work/<model>-search-<key>``. The same command
goes on where it was interrupted, and with more trials or minutes where it ended. Data, weights, cuts and the networks
asked for by chance are decided by the seed; predicted times and memory are measurements, and since suggestions follow
them, two searches need not find the same ladder.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from variants.build import BuildOptions, build_model, find_built
from variants.cache import StepCache
from variants.data import load_parts
from variants.effort import cpu_time_s
from variants.errors import RecipeError, naming_step
from variants.identity import identify
from variants.ladder import Found, LadderPlan, Rung
from variants.machine import describe_machine
from variants.making import make_teacher
from variants.progress import SilentProgress, show_step
from variants.publication import model_lock, refusing_full_disk, work_folder
from variants.recipe import is_trained
from variants.search.bench import Bench, fit_predictors, keep_timed
from variants.search.choosing import choose_ladder, find_front
from variants.search.space import find_space
from variants.search.study import Study
from variants.workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from variants.build import BuildResult
    from variants.plans import Plan
    from variants.progress import Progress
    from variants.recipe import AnyRecipe, Recipe
    from variants.search.bench import Check
    from variants.search.choosing import Candidate
    from variants.search.space import Space

SHORTFALL: Final = 3.0
"""A candidate may lose so many times what the gate allows: its short fit gives back less than the long one to come."""
HANDED_ON: Final = ("train-full.step", "export-full.step", "teach.step")


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """When to stop scoring (``minutes`` are of CPU time, over all attempts), and how many tiers to choose beside full.

    ``shapes`` (4 or more) are timed to predict latency from, a quarter of them to judge the predictions. ``force``
    forgets what earlier searches of the recipe found.
    """

    seed: int = 0
    trials: int = 100
    minutes: float = 20.0
    tiers: int = 5
    shapes: int = 48
    force: bool = False


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The candidates, those chosen (most accurate first), the predictor's check, and the version built of them.

    ``cpu_s`` is the CPU time of this run, its children's included; ``scoring_cpu_s`` that of scoring in all attempts.
    """

    candidates: tuple[Candidate, ...]
    ladder: tuple[Rung, ...]
    check: Check
    build: BuildResult
    asked: int
    cpu_s: float
    scoring_cpu_s: float


def search_model(
    recipe: AnyRecipe, output: Path, options: SearchOptions | None = None, progress: Progress | None = None
) -> SearchResult:
    """Search the networks that are contained in ``recipe``'s full one, and build the ladder that was found.

    Raises:
        RecipeError: The recipe trains no network, or there is nothing to vary in it, or nothing on the front.
        BuildError: As ``build_model`` raises it.
    """
    options, progress = options or SearchOptions(), progress or SilentProgress()
    if not is_trained(recipe):
        raise RecipeError(
            f"recipe '{recipe.name}' cannot be searched: it brings files and trains no network, so there are no widths "
            "and no blocks to choose from; a search needs make_model and augment, as in digits, images or regression"
        )
    started_s = cpu_time_s()
    parts = load_parts(recipe, options.seed)
    with naming_step("identify"):
        identity = identify(recipe, parts, options.seed, describe_machine().isa)
    with model_lock(output, recipe.name, "search"), refusing_full_disk(output):
        work = work_folder(output, f"{recipe.name}-search", _key(identity.key))
        if options.force:
            shutil.rmtree(work, ignore_errors=True)
        shop = Workshop(recipe, parts, options.seed, StepCache(work / "steps"), progress)
        bench, check = _prepare(shop, recipe, options.shapes)
        study = Study(work / "study.journal", bench.space, options.seed)
        _explore(bench, study, options)
        ladder = _climb(bench, study.candidates, options.tiers)
        searched = _with_plan(recipe, ladder)
        with naming_step("identify"):
            key = identify(searched, parts, options.seed, describe_machine().isa).key
        if find_built(output, recipe.name, key) is None:
            _hand_on(work / "steps", work_folder(output, recipe.name, key) / "steps")
        build = build_model(searched, output, BuildOptions(seed=options.seed), progress)
    return SearchResult(
        candidates=tuple(study.candidates),
        ladder=ladder,
        check=check,
        build=build,
        asked=study.asked,
        cpu_s=cpu_time_s() - started_s,
        scoring_cpu_s=study.cpu_s,
    )


def _prepare(shop: Workshop, recipe: Recipe, shapes: int) -> tuple[Bench, Check]:
    """Train full, find what can be varied, and learn to predict latency."""
    teacher = make_teacher(shop, recipe)
    with naming_step("find what can be varied"):
        space = find_space(recipe, teacher.model, torch.from_numpy(shop.parts.validation.inputs[:2]))
    with naming_step("time shapes"):
        predictors, check = fit_predictors(keep_timed(shop, recipe, teacher, space, shapes))
    shop.progress.note(
        f"latency predictor: {check.mean:.1%} off on average and {check.most:.1%} at most, on {check.files} files "
        "that it was not fitted to"
    )
    return Bench(shop, recipe, teacher, space, predictors), check


def _explore(bench: Bench, study: Study, options: SearchOptions) -> None:
    """Score candidates until there are enough, or CPU time is up."""
    left = options.trials - study.asked
    if left <= 0 or study.cpu_s >= options.minutes * 60:
        return
    _ = bench.teacher.lesson  # has its own progress bar, which must end before the next begins
    with show_step(bench.shop.progress, "search", left) as advance, tempfile.TemporaryDirectory() as folder:
        while study.asked < options.trials and study.cpu_s < options.minutes * 60:
            began_s = cpu_time_s()
            trial, choice = study.ask()
            with naming_step(f"candidate {trial.number}"):
                found = study.recall(choice) or bench.score(choice, trial.number, Path(folder))
            study.tell(trial, found, cpu_time_s() - began_s)
            bench.shop.progress.note(_news(bench.space, found, study.candidates))
            advance()


def _news(space: Space, found: Sequence[Candidate], candidates: Sequence[Candidate]) -> str:
    """Return one line on a network and the front so far."""
    front = find_front(candidates)
    scores = ", ".join(f"{one.precision} {one.accuracy:.1%} {one.p50_s * 1e6:.0f} us" for one in found)
    reach = f"{front[0].p50_s * 1e6:.0f} to {front[-1].p50_s * 1e6:.0f} us"
    return f"{found[0].trial}: {space.describe(found[0].choice)}: {scores}; front: {len(front)}, {reach}"


def _climb(bench: Bench, candidates: Sequence[Candidate], tiers: int) -> tuple[Rung, ...]:
    """Return the tiers of the ladder, most accurate first."""
    plan = bench.recipe.plan
    full = next(one for one in candidates if one.precision == "float32" and bench.space.shape(one.choice).is_full)
    least = full.accuracy - SHORTFALL * plan.thresholds.max_loss
    chosen = choose_ladder([one for one in candidates if one.accuracy >= least], tiers, full.p50_s)
    if not chosen:
        raise RecipeError(
            f"no candidate of recipe '{bench.recipe.name}' is faster than full and within {full.accuracy - least:g} "
            f"of its accuracy {full.accuracy:.4g}, after {len(candidates)}; search longer (--trials, --minutes)"
        )
    if len(chosen) < tiers:
        bench.shop.progress.note(f"the front has {len(chosen)} tiers; {tiers} were asked for: search longer")
    return tuple(_rung(bench, one, number) for number, one in enumerate(chosen, start=1))


def _rung(bench: Bench, candidate: Candidate, number: int) -> Rung:
    shape = bench.space.shape(candidate.choice)
    return Rung(
        name=f"rung-{number}",
        without=shape.without,
        pruning=bench.space.plan(shape, bench.recipe.plan.distillation),
        is_quantized=candidate.precision == "int8",
        found=Found(
            trial=candidate.trial,
            network=bench.space.describe(candidate.choice),
            accuracy=candidate.accuracy,
            divergence=candidate.divergence,
            p50_s=candidate.p50_s,
        ),
    )


def _with_plan(recipe: Recipe, ladder: tuple[Rung, ...]) -> Recipe:
    """Return the recipe with a plan of the ladder."""
    plan: Plan = recipe.plan
    numbers = {field.name: getattr(plan, field.name) for field in fields(plan)}
    searched = copy.copy(recipe)
    try:
        searched.plan = LadderPlan(**numbers, ladder=ladder)  # type: ignore[misc]  # only read in the protocol
    except AttributeError:
        raise RecipeError(f"recipe '{recipe.name}' cannot be searched: its plan cannot be replaced") from None
    return searched


def _hand_on(steps: Path, build_steps: Path) -> None:
    """Give the build what is finished already."""
    build_steps.mkdir(parents=True, exist_ok=True)
    for name in HANDED_ON:
        if (steps / name).is_file():  # answers are there if a candidate had to learn from them
            shutil.copyfile(steps / name, build_steps / name)


def _key(build_key: str) -> str:
    """Return what makes two searches the same: what makes two builds the same, and this package's own source."""
    digest = hashlib.sha256(build_key.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
