"""How far estimates without labels lie from the truth, over shifts and damaged weights, and how often they cover it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.drift.answers import CLEAN, FULL
from loadtests.drift.references import present, references_of
from loadtests.drift.shifts import GENERIC
from service.policy.drift.classification import Classification
from service.policy.drift.estimate import estimate_accuracy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from loadtests.drift.answers import Answers, Floats, Labels
    from service.domain.drift import VariantReference

PAIR_SHARE: Final = 0.5
"""Of a condition's rows; the watch keeps as many pairs as answers, but they are rarer."""
BANDS: Final = {"up to 20 points lost": (-1.0, 0.2), "20 to 40 points lost": (0.2, 0.4), "more lost": (0.4, 1.01)}
"""By how much accuracy is below that of clean rows."""
MILD: Final = next(iter(BANDS))
METHODS: Final = ("plain CBPE", "ATC", "confidence", "shadow")


@dataclass(frozen=True, slots=True)
class Case:
    """One variant under one condition: what is true, and what each method believes, some with an interval.

    ``clean`` is its accuracy on clean rows.
    """

    model: str
    variant: str
    condition: str
    strength: float
    clean: float
    truth: float
    estimates: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    @property
    def band(self) -> str:
        """The band of what was lost."""
        return next(name for name, (low, high) in BANDS.items() if low <= self.clean - self.truth < high)


def run_estimates(models: Mapping[str, Answers]) -> dict[str, Any]:
    """Return errors and coverage by method, by band of true accuracy, and by condition."""
    cases = [case for name, answers in models.items() for case in _cases(name, answers)]
    worse = [case for case in cases if case.condition != CLEAN]
    mild = [case for case in worse if case.band == MILD]
    own = {name: [case for case in mild if case.model == name] for name in models}
    return {
        "by band": {band: _summary([case for case in worse if case.band == band]) for band in BANDS},
        "by model": {name: _summary(found) for name, found in own.items()},
        "by condition": {
            condition: _summary([case for case in mild if case.condition == condition])
            for condition in sorted({case.condition for case in mild})
        },
        "all": _summary(worse),
        "clean": _summary([case for case in cases if case.condition == CLEAN]),
        "kinds the build also perturbs by": _summary([case for case in mild if case.condition in GENERIC]),
        "kinds it has never seen": _summary([case for case in mild if case.condition not in GENERIC]),
        "cases": [
            {"where": f"{case.model} {case.variant} {case.condition} {case.strength}", "truth": case.truth}
            | {method: case.estimates[method] for method in ("confidence", "shadow")}
            for case in cases
        ],
    }


def _summary(cases: list[Case]) -> dict[str, Any]:
    if not cases:
        return {"cases": 0}
    found: dict[str, Any] = {
        "cases": len(cases),
        "conditions": len({case.condition for case in cases}),
        "accuracy": float(np.mean([case.truth for case in cases])),
    }
    for method in METHODS:
        errors = np.asarray([case.estimates[method] - case.truth for case in cases])
        figures = {"mean_absolute_error": float(np.abs(errors).mean()), "bias": float(errors.mean())}
        spans = [(case, *case.intervals[method]) for case in cases if method in case.intervals]
        if spans:
            figures["coverage"] = float(np.mean([low <= case.truth <= high for case, low, high in spans]))
            figures["half_width"] = float(np.mean([(high - low) / 2 for _, low, high in spans]))
        found[method] = figures
    return found


def _cases(model: str, answers: Answers) -> Iterator[Case]:
    known = references_of(answers.manifest)
    accuracy = {name: _accuracy(output, answers.clean.labels) for name, output in answers.clean.outputs.items()}
    for scene in (answers.clean, *answers.shifted):
        for variant, output in scene.outputs.items():
            place = (model, variant, scene.name, scene.strength, accuracy[variant])
            yield _case(place, (scene.outputs[FULL], output), scene.labels, known)
    whole = answers.whole()
    for damage in (item for item in answers.damaged if item.variant != FULL):  # of full nothing but confidence tells
        place = (model, damage.variant, "flipped weights", float(damage.flips), accuracy[damage.variant])
        yield _case(place, (whole.outputs[FULL], damage.output), whole.labels, known)


def _accuracy(output: Floats, labels: Labels) -> float:
    return float((output.argmax(1) == labels).mean())


def _case(
    place: tuple[str, str, str, float, float],
    outputs: tuple[Floats, Floats],
    labels: Labels,
    known: Mapping[str, VariantReference],
) -> Case:
    full, own = (present(known[name].calibration, f"calibration of {name}") for name in (FULL, place[1]))
    pairs = Classification().compare([outputs[0]], [outputs[1]])
    odds = np.asarray([pair.log_odds for pair in pairs])
    alone = present(estimate_accuracy(odds, own), "estimate")
    seen = pairs[: round(PAIR_SHARE * len(pairs))] if place[1] != FULL else ()
    both = present(estimate_accuracy(odds, own, seen, full), "estimate")
    return Case(
        *place,
        truth=_accuracy(outputs[1], labels),
        estimates={
            "plain CBPE": float(_probability(odds).mean()),
            "ATC": alone.threshold,
            "confidence": alone.value,
            "shadow": both.value,
        },
        intervals={"confidence": (alone.low, alone.high), "shadow": (both.low, both.high)},
    )


def _probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))
