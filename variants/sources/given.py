"""A model that somebody trained elsewhere, as a recipe: its file, rows to calibrate with, perhaps labelled ones.

Nothing is trained. Full is the file itself; what derives from it is quantized and, where channels can be removed at
once (``variants.onnx_pruning``), pruned. With labelled rows variants are judged as those of any recipe are; without,
what full answers counts as right, and the metric is the agreement with it.
Answers are classes where the first output is one score for each class; else they are values, right within a tolerance.
That they are boxes cannot be told from a file: the user says so, and ``detectors`` reads what such a file has.

Rows are dealt out from one seeded permutation: some set the ranges of int8, some choose among ranges, and where there
are no labelled rows the rest is measured. A row that occurs twice is used once, a labelled one only to measure.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from variants.boxes import COORDINATES
from variants.data import row_hashes
from variants.errors import LeftOut, RecipeError, StepFailed, naming_step
from variants.interface import describe_interface
from variants.onnx_pruning import OneShot, prune_file
from variants.plans import FilePlan, Quantization, Thresholds
from variants.recipe import DataParts, Draft, Examples, Ready
from variants.runtime import run_logits
from variants.scoring import Classes, Scoring, Values
from variants.sources.arrays import read_arrays, take_inputs, take_labels, wanted_arrays
from variants.sources.detectors import check_boxes, read_class_names, with_boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from variants.evidence import Parity
    from variants.manifest import Task
    from variants.recipe import Floats, Inputs
    from variants.sources.arrays import Arrays
    from variants.sources.models import Given

FEWEST_ROWS: Final = 32
MOST_CALIBRATION: Final = 256
MOST_VALIDATION: Final = 512
USUAL_SHARE: Final = 0.1
"""The tolerance of values where none is given: this share of their spread."""
HALF: Final = 0.5
SMALLEST: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenPlan(FilePlan):
    """The plan of a given file, which is pruned unless ``pruning`` is ``None``."""

    pruning: OneShot | None = field(default_factory=OneShot)


_USUAL: Final = GivenPlan(
    thresholds=Thresholds(min_full=0.0, max_loss=0.05, min_agreement=0.9),
    quantization=Quantization(methods=("minmax", "percentile"), max_kl=0.01),
    precisions=("dynamic", "half"),
)
PLANS: Final[dict[Task, GivenPlan]] = {
    "classification": _USUAL,
    "regression": _USUAL,
    # A box at the edge of a score or an overlap tips a whole picture over, whose share is what gates look at.
    "detection": replace(
        _USUAL,
        thresholds=Thresholds(min_full=0.0, max_loss=0.05, min_agreement=0.7),
        quantization=Quantization(methods=("minmax", "percentile"), max_kl=0.1, max_float_nodes=2),
    ),
}


@dataclass(frozen=True)
class GivenModel:
    """The recipe of a given file: ``rows`` to calibrate with, and ``labelled`` ones to measure on, if there are."""

    name: str
    metric: str
    dataset: str
    labels: tuple[str, ...]
    scoring: Scoring
    plan: GivenPlan
    file: bytes
    rows: Inputs
    labelled: Examples | None
    parity: Parity | None = None

    def load(self, seed: int) -> DataParts:
        """Deal the rows out; what has no label counts as right where it is what full answers.

        Raises:
            RecipeError: There are too few different rows.
        """
        taken = row_hashes(self.labelled.inputs) if self.labelled else set()
        rows = _distinct(self.rows, taken)
        if len(rows) < FEWEST_ROWS:
            beside = " that are not among the labelled ones" if taken else ""
            raise RecipeError(
                f"there are {len(rows)} different rows to calibrate '{self.name}' with{beside}; give {FEWEST_ROWS} or "
                "more, better some hundreds"
            )
        rows = rows[np.random.default_rng(seed).permutation(len(rows))]
        share = len(rows) // (2 if self.labelled else 4)
        first = min(MOST_CALIBRATION, share)
        second = first + min(MOST_VALIDATION, share)
        calibration, validation, rest = np.split(rows, [first, second])
        test = self.labelled or self._answered(rest)
        return DataParts(self._answered(rows[:0]), self._answered(calibration), self._answered(validation), test)

    def draft(self, parts: DataParts, seed: int) -> Iterator[Draft]:  # noqa: ARG002 - the protocol's form
        """Return the file as it is, and without the channels that it can do without."""
        yield Draft(
            "full", "full", None, "take", {"sha256": self.plan.starts_from}, lambda: Ready(self.file, self.parity)
        )
        if (plan := self.plan.pruning) is not None:
            yield Draft("pruned", "pruned", "full", "prune", asdict(plan), lambda: self._prune(parts, plan))

    def _prune(self, parts: DataParts, plan: OneShot) -> Ready:
        rows = parts.calibration.inputs, parts.validation.inputs
        try:
            with naming_step("prune pruned"):
                file, chosen = prune_file(self.file, rows, plan, self.scoring)
        except StepFailed as error:  # an operator that nobody foresaw
            raise LeftOut(str(error)) from error
        return Ready(file, chosen=chosen)

    def _answered(self, rows: Inputs) -> Examples:
        if not len(rows):
            return Examples(rows, np.zeros(0, dtype=np.int64))
        answers = run_logits(self.file, rows)
        return Examples(rows, self.scoring.answer(answers))


def read_given(
    file: bytes, given: Given, labels: tuple[str, ...] = (), read: Callable[[Path], Arrays] = read_arrays
) -> GivenModel:
    """Return the recipe of an ONNX file as it will be served; ``labels`` name its classes, if that is known.

    ``read`` returns the arrays of the files that are given beside it.

    Raises:
        RecipeError: Rows are absent, or do not fit the model.
    """
    inputs, _ = describe_interface(file)
    if given.calibration is None:
        raise RecipeError(
            f"building '{given.source}' needs rows like those that clients will send: --calibration FILE.npz with "
            f"{wanted_arrays(inputs)}; some hundreds are well"
        )
    rows = take_inputs(read(given.calibration), inputs, given.calibration)
    labelled = None
    if given.evaluate is not None:
        arrays = read(given.evaluate)
        measured = take_inputs(arrays, inputs, given.evaluate)
        labelled = Examples(measured, take_labels(arrays, len(measured), given.evaluate))
    if not len(rows) or (labelled is not None and not len(labelled)):
        raise RecipeError(f"'{given.evaluate if len(rows) else given.calibration}' has no rows")
    answers = _answer(file, rows[:FEWEST_ROWS], given.source)
    scoring, labelled = _choose_scoring(answers, labelled, given)
    names = labels or _name_classes(file, scoring, answers)
    if labelled is not None and (problem := scoring.problem(labelled.labels, names)):
        raise RecipeError(f"'{given.evaluate}' has {problem}")
    return GivenModel(
        name=given.model_name(),
        metric=_name_metric(scoring, is_labelled=labelled is not None),
        dataset=(given.evaluate or given.calibration).name,
        labels=names,
        scoring=scoring,
        plan=replace(PLANS[scoring.task], starts_from=hashlib.sha256(file).hexdigest()),
        file=file,
        rows=rows,
        labelled=labelled,
    )


def _name_classes(file: bytes, scoring: Scoring, answers: Floats) -> tuple[str, ...]:
    """Return the classes' names, their numbers where the file has none; values have none at all."""
    if scoring.task == "classification":
        return tuple(map(str, range(answers.shape[1])))
    return read_class_names(file, answers.shape[1] - COORDINATES) if scoring.task == "detection" else ()


def _choose_scoring(answers: Floats, labelled: Examples | None, given: Given) -> tuple[Scoring, Examples | None]:
    """Return what counts as right, and the labelled rows in its form; ``answers`` (rows, ...) are some of full's."""
    if given.boxes:
        return check_boxes(answers, given.source), with_boxes(labelled, answers, given.evaluate)
    is_counted = labelled is None or np.issubdtype(labelled.labels.dtype, np.integer)
    if given.tolerance is None and is_counted and answers.ndim == 2 and answers.shape[1] > 1:  # noqa: PLR2004 - a table
        return Classes(), labelled
    if labelled is None:
        spread = float(answers.std(axis=0).mean())
        return Values(given.tolerance or max(USUAL_SHARE * spread, SMALLEST)), None
    values = labelled.labels.astype(np.float32)
    if values.size != len(values) * (answers.size // len(answers)):
        raise RecipeError(
            f"'{given.evaluate}' has labels {list(values.shape)}; the model answers {['rows', *answers.shape[1:]]}: "
            "expected a label for each value, or class numbers where it gives one score for each class"
        )
    if given.tolerance is None and is_counted:
        if answers.min() < 0.0 or answers.max() > 1.0 or values.max() > 1.0:
            raise RecipeError(
                f"'{given.evaluate}' has whole numbers as labels, and the model gives a value that is no probability; "
                "say with --tolerance how near a right value is, or export scores for each class"
            )
        return Values(HALF), Examples(labelled.inputs, values)
    tolerance = given.tolerance or max(USUAL_SHARE * float(values.std()), SMALLEST)
    return Values(tolerance), Examples(labelled.inputs, values)


def _name_metric(scoring: Scoring, *, is_labelled: bool) -> str:
    if not is_labelled:
        return "agreement"
    if scoring.task == "detection":
        return "right pictures"
    return f"within {scoring.tolerance:.3g}" if isinstance(scoring, Values) else "accuracy"


def _answer(file: bytes, rows: Inputs, source: Path) -> Floats:
    """Return the file's answers to some rows, once they are seen not to depend on each other.

    Raises:
        RecipeError: The file cannot answer, or a row's answer depends on its neighbours.
    """
    try:
        together = run_logits(file, rows)
        alone = np.concatenate([run_logits(file, rows[:1]), run_logits(file, rows[-1:])])
    except Exception as error:  # the runtime raises a family of classes that share no public base
        raise RecipeError(f"'{source}' cannot answer the rows given: {str(error).splitlines()[0][:300]}") from error
    if not np.isfinite(together).all():
        raise RecipeError(f"'{source}' answers the rows given with values that are no finite numbers")
    if len(together) != len(rows) or not np.allclose(alone, together[[0, -1]], rtol=1e-3, atol=1e-3):
        raise RecipeError(
            f"'{source}' answers a row otherwise when others stand beside it; requests are run together, so that "
            "each row's answer must be its own: look for an operation over the first axis"
        )
    return together


def _distinct(rows: Inputs, taken: set[bytes]) -> Inputs:
    """Return the rows, each once, without those whose hash is in ``taken``."""
    seen, kept = set(taken), []
    for place in range(len(rows)):
        (digest,) = row_hashes(rows[place : place + 1])
        if digest not in seen:
            seen.add(digest)
            kept.append(place)
    return rows[kept]
