"""Where candidates are made and scored: the teacher, the data, and a predictor of latency.

A candidate inherits what is left of the full model's weights: blocks are left out, the least important channels cut,
batch norms set anew, and the rest is fitted to the teacher's answers for a few steps. The steps are few where the
candidate is large, since it has inherited more and each costs more. It is exported, quantized, and judged on
validation rows in both precisions, so that one fit gives two candidates.
"""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch_pruning

from variants.contention import doubt, watch_others
from variants.export import export_onnx
from variants.fitting import Lesson, fit
from variants.machine import describe_machine
from variants.plans import Profiling, Quantization
from variants.profiling import measure_footprints, profile_latency
from variants.progress import show_step
from variants.pruning import prune
from variants.quantization import quantize
from variants.residual import leave_out
from variants.runtime import run_logits
from variants.search.choosing import Candidate
from variants.search.prediction import Predictor, count_work, fit_predictor
from variants.search.space import PRECISIONS

if TYPE_CHECKING:
    import torch

    from variants.making import Teacher
    from variants.recipe import Examples, Recipe
    from variants.search.prediction import Work
    from variants.search.space import Choice, Precision, Space
    from variants.workshop import Workshop

HELD_OUT: Final = 4
"""One of so many timed shapes, spread over them, is kept out of the fit."""
TIMING: Final = Profiling(batch_sizes=(1,), threads=(1,), rounds=12, runs=360)
SHORT: Final = 6
"""A candidate is fitted for at most a sixth of the steps of a distillation,"""
LARGE: Final = 0.25
"""and for fewer where it has more than a quarter of full's multiply-accumulates, so that the work is the same."""
FEWEST_STEPS: Final = 16
FEW_ROWS: Final = 40


@dataclass(frozen=True, slots=True)
class Timed:
    """One file that was timed: its work, and its median time of one row on one thread, seconds."""

    precision: Precision
    work: Work
    p50_s: float


@dataclass(frozen=True, slots=True)
class Check:
    """How far predictions were off files that they were not fitted to, as ratios of the measured times."""

    files: int
    mean: float
    most: float


@dataclass(frozen=True, slots=True)
class Bench:
    """All that candidates of one recipe have in common."""

    shop: Workshop
    recipe: Recipe
    teacher: Teacher
    space: Space
    predictors: dict[Precision, Predictor]

    def score(self, choice: Choice, trial: int, folder: Path) -> tuple[Candidate, ...]:
        """Return the candidates of one network, in the order of ``PRECISIONS``."""
        validation = self.shop.parts.validation
        model = self._slim(choice)
        files = _files(self.shop, self.recipe, model, self.shop.parts.calibration)
        work = {precision: count_work(files["float32"], precision) for precision in PRECISIONS}
        paths = {precision: _write(folder / f"{precision}.onnx", file) for precision, file in files.items()}
        footprints = measure_footprints({str(key): path for key, path in paths.items()}, 1, lambda: None)
        expected = run_logits(self.teacher.made.file, validation.inputs)  # (rows, ...)
        found = []
        for precision in PRECISIONS:
            outputs = run_logits(files[precision], validation.inputs)  # (rows, ...)
            found.append(
                Candidate(
                    trial=trial,
                    choice=choice,
                    precision=precision,
                    accuracy=float(self.shop.scoring.right(outputs, validation.labels).mean()),
                    divergence=self.shop.scoring.divergence(expected, outputs),
                    rows=len(validation),
                    p50_s=self.predictors[precision].predict(work[precision]),
                    file_bytes=len(files[precision]),
                    memory_bytes=footprints[precision].memory.loaded_bytes,
                )
            )
        return tuple(found)

    def _slim(self, choice: Choice) -> torch.nn.Module:
        """Return the network of a choice after its short fit."""
        if self.space.shape(choice).is_full:
            return self.teacher.model
        lesson = self.teacher.lesson
        model, row = cut(self.teacher.model, lesson, self.space, choice), lesson.inputs[:1]
        share = _macs(model, row) / _macs(self.teacher.model, row)
        training = self.recipe.plan.distillation
        steps = max(FEWEST_STEPS, int(training.steps / SHORT * min(1.0, LARGE / share)))
        return fit(model, lesson, replace(training, steps=steps), self.shop.seed + 2, lambda: None)


def cut(model: torch.nn.Module, lesson: Lesson, space: Space, choice: Choice) -> torch.nn.Module:
    """Return what a choice leaves of ``model``, its batch norms set anew and nothing fitted."""
    shape = space.shape(choice)
    shorter = leave_out(model, shape.without)
    plan = space.plan(shape, None)
    return shorter if plan is None else prune(shorter, lesson, plan, 0, lambda: None)


def time_shapes(shop: Workshop, recipe: Recipe, teacher: Teacher, space: Space, shapes: int) -> list[Timed]:
    """Return timed files of ``shapes`` shapes, full, the smallest, and random ones between, every precision of each.

    As many are small as large: of choices by pure chance few are near the smallest, and there the prediction was
    farthest off.
    """
    chance = random.Random(shop.seed)  # noqa: S311 - a sample, no secret
    most = space.dimensions
    choices = [dict.fromkeys(most, 0), most, *space.spread(shapes - 2, chance)]
    few = replace(teacher.lesson, inputs=teacher.lesson.inputs[:FEW_ROWS])
    with tempfile.TemporaryDirectory() as name:
        paths: dict[str, Path] = {}
        works: dict[str, tuple[Precision, Work]] = {}
        with show_step(shop.progress, "shapes to time", len(choices)) as advance:
            for number, choice in enumerate(choices):
                files = _files(shop, recipe, cut(teacher.model, few, space, choice), shop.parts.calibration)
                for precision in PRECISIONS:
                    key = f"{number}-{precision}"
                    paths[key] = _write(Path(name) / f"{key}.onnx", files[precision])
                    works[key] = precision, count_work(files["float32"], precision)
                advance()
        shop.progress.note(f"timing {len(paths)} files")
        with show_step(shop.progress, "time shapes", TIMING.rounds) as advance, watch_others() as others:
            rows = profile_latency(paths, shop.parts.validation.inputs, TIMING, advance)
        if doubtful := doubt(others.cores, describe_machine().cores, max(TIMING.threads)):
            shop.progress.note(f"{doubtful}: search again with --force when the machine is quiet")
        return [Timed(*works[key], rows[key][0].p50_s) for key in paths]


def keep_timed(shop: Workshop, recipe: Recipe, teacher: Teacher, space: Space, shapes: int) -> list[Timed]:
    """Return ``time_shapes`` of this or an earlier attempt."""

    def make() -> bytes:
        return json.dumps([asdict(one) for one in time_shapes(shop, recipe, teacher, space, shapes)]).encode()

    return [Timed(**one) for one in json.loads(shop.cache.get_or_make("timed-shapes", make).payload)]


def fit_predictors(timed: list[Timed]) -> tuple[dict[Precision, Predictor], Check]:
    """Return a predictor for each precision, and how far they are off the files that were held out of the fit.

    Those returned are fitted to all files, and so to a third more than those that were judged.
    """
    predictors: dict[Precision, Predictor] = {}
    errors: list[float] = []
    for precision in PRECISIONS:
        own = [one for one in timed if one.precision == precision]
        held_out = own[HELD_OUT - 1 :: HELD_OUT]
        fitted = [one for one in own if one not in held_out]
        predictor = fit_predictor([one.work for one in fitted], [one.p50_s for one in fitted])
        errors += [abs(predictor.predict(one.work) / one.p50_s - 1.0) for one in held_out]
        predictors[precision] = fit_predictor([one.work for one in own], [one.p50_s for one in own])
    return predictors, Check(len(errors), sum(errors) / len(errors), max(errors))


def _files(shop: Workshop, recipe: Recipe, model: torch.nn.Module, calibration: Examples) -> dict[Precision, bytes]:
    """Return the model's file in each precision; ranges of int8 are the extremes, since other ways take longer."""
    validation = shop.parts.validation.inputs
    plain = export_onnx(model, recipe, validation)
    plan = replace(recipe.plan.quantization or Quantization(), methods=("minmax",), max_float_nodes=0)
    int8, _ = quantize(plain, calibration.inputs, validation, plan, lambda: None, shop.scoring.divergence)
    return {"float32": plain, "int8": int8}


def _macs(model: torch.nn.Module, row: torch.Tensor) -> float:
    return float(torch_pruning.utils.count_ops_and_params(model, row)[0])


def _write(path: Path, file: bytes) -> Path:
    path.write_bytes(file)
    return path
