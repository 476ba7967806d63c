"""Who is found to be wrong where a variant and full differ: with witnesses, and without.

Shadow samples of one smaller variant are drawn from real answers while full, that variant or another one has flipped
bits, while inputs are shifted and nothing is damaged, or while all is well. The watches of the whole ladder see them as
in the gateway. What counts is who is demoted or quarantined first, since traffic then moves. *Without* the watch
believes full, whatever others would say. The same again for ladders that have no quantized form of full, which is the
one witness that errs on new inputs as full does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from loadtests.drift.answers import DROPS_OF_FULL, FULL, STRENGTHS
from loadtests.drift.references import references_of
from service.policy.drift.classification import Classification
from service.policy.drift.lifecycle import SEVERITY
from service.policy.drift.watch import VariantWatch
from service.policy.drift.witnesses import Panel, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from loadtests.drift.answers import Answers, Floats, Labels, Scene
    from loadtests.drift.spreading import Spread
    from service.domain.drift import VariantReference
    from service.policy.drift.pairs import Pair

MOST: Final = 1000
REPEATS: Final = 2
SHIFTED: Final = "nothing, but inputs are shifted"
TWIN: Final = "quantized"
"""The tier of full's own network in a lower precision."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """A model's variants: their tiers, and what is known of them."""

    model: str
    tiers: Mapping[str, str]
    known: Mapping[str, VariantReference]

    def panel(self, names: Iterable[str]) -> Panel:
        """Return watches that have seen nothing."""
        full = self.known[FULL]
        watches = {name: VariantWatch(self.known[name], full) for name in names if name != FULL}
        panel = Panel(FULL, self.tiers, watches)
        watches[FULL] = VariantWatch(full, None, allowed_blame=panel.allowed_blame())
        return panel


@dataclass(frozen=True, slots=True)
class Trial:
    """A fault, and shadow samples of the variant that is ``judged`` by full.

    ``pairs`` has one for each row, ``classes`` (rows,) what each variant of the ladder answers.
    """

    number: int
    fault: str
    judged: str
    ladder: Ladder
    pairs: tuple[Pair, ...]
    classes: Mapping[str, NDArray[np.int64]]


class End(NamedTuple):
    """Who is out first, '' for nobody, after how many samples, and who without witnesses."""

    model: str
    fault: str
    out: str
    delay: int
    without: str


def run_witnesses(models: Mapping[str, Answers], spread: Spread, note: Callable[[str], None]) -> dict[str, Any]:
    """Return by fault how often full, and how often a smaller variant, is out first, and after how many samples."""
    trials = [trial for answers in models.values() for trial in _trials(answers)]
    ends = [end for found in spread(try_out, trials) for end in found]
    note(f"{len(trials)} trials with witnesses, and without")
    faults = list(dict.fromkeys(end.fault for end in ends))
    by_fault = {fault: [end for end in ends if end.fault == fault] for fault in faults}
    return {
        fault: _figures(found)
        | {"by model": {name: _figures(own) for name in models if (own := [end for end in found if end.model == name])}}
        for fault, found in by_fault.items()
    }


def try_out(trial: Trial) -> list[End]:
    """Draw samples of a trial's rows and see who is out, some times over."""
    ends = []
    for repeat in range(1 if trial.fault.startswith(SHIFTED) else REPEATS):
        chance = np.random.default_rng([6, trial.number, repeat])
        places = chance.integers(0, len(trial.pairs), MOST).tolist()
        out, delay = _first_out(trial, places, is_heard=True)
        ends.append(End(trial.ladder.model, trial.fault, out, delay, _first_out(trial, places, is_heard=False)[0]))
    return ends


def _figures(ends: Sequence[End]) -> dict[str, Any]:
    delays = [end.delay for end in ends if end.out]
    return {
        "cases": len(ends),
        "full_out_ratio": sum(end.out == FULL for end in ends) / len(ends),
        "smaller_out_ratio": sum(end.out not in ("", FULL) for end in ends) / len(ends),
        "smaller_out_without_ratio": sum(end.without not in ("", FULL) for end in ends) / len(ends),
        "median_delay_samples": median(delays) if delays else None,
    }


def _trials(answers: Answers) -> Iterator[Trial]:
    published = answers.manifest.published
    ladder = Ladder(
        answers.manifest.model, {item.name: item.tier for item in published}, references_of(answers.manifest)
    )
    for number, (fault, judged, outputs) in enumerate(_faults(answers, ladder.tiers)):
        pairs = Classification().compare([outputs[FULL]], [outputs[judged]])
        classes = {name: output.argmax(1) for name, output in outputs.items()}
        yield Trial(number, fault, judged, ladder, pairs, classes)


def _faults(answers: Answers, tiers: Mapping[str, str]) -> Iterator[tuple[str, str, Mapping[str, Floats]]]:
    """Yield each fault's name, who is run beside full, and what every variant of the ladder answers meanwhile."""
    ladders = {"": tuple(tiers), ", no quantized form of full": tuple(name for name in tiers if tiers[name] != TWIN)}
    whole = answers.whole()
    for (words, names), (fault, outputs) in product(ladders.items(), _faults_of_full(answers, whole)):
        if words and names == ladders[""]:
            continue
        yield from ((fault + words, name, {item: outputs[item] for item in names}) for name in names if name != FULL)
    smaller = [damage for damage in answers.damaged if damage.variant != FULL]
    for damage in smaller:
        one = whole.outputs | {damage.variant: damage.output}
        yield "the smaller variant, by 5 points", damage.variant, one
        others = {tiers[other.variant].split("-")[0]: other for other in smaller}
        for lineage, other in others.items():
            if lineage != tiers[damage.variant].split("-")[0]:
                both = one | {other.variant: other.output}
                yield "it and another smaller one, by 5 points", damage.variant, both


def _faults_of_full(answers: Answers, whole: Scene) -> list[tuple[str, dict[str, Floats]]]:
    """Return what may be wrong with full, or with nobody, and what all variants answer then."""
    found = [("nothing", whole.outputs)]
    found += [(SHIFTED, scene.outputs) for scene in answers.shifted if scene.strength == max(STRENGTHS)]
    for damage in answers.damaged:
        if damage.variant == FULL:
            points = _points(damage.output, whole.outputs[FULL], whole.labels)
            found.append((f"full, by {points} points", whole.outputs | {FULL: damage.output}))
    return found


def _points(damaged: Floats, whole: Floats, labels: Labels) -> int:
    """Return which of the wanted drops full's damage is nearest to, in points."""
    right = [float((output.argmax(1) == labels).mean()) for output in (whole, damaged)]
    return round(100 * min((drop for drop, _ in DROPS_OF_FULL), key=lambda drop: abs(right[0] - right[1] - drop)))


def _first_out(trial: Trial, places: Sequence[int], *, is_heard: bool) -> tuple[str, int]:
    """Return who is demoted or quarantined first and after how many samples; '' and ``MOST`` if nobody is."""
    panel, judged = trial.ladder.panel(trial.classes), trial.classes[trial.judged]
    for count, place in enumerate(places, start=1):
        pair = trial.pairs[place]
        asked = panel.witnesses_of(trial.judged) if is_heard and pair.loss > 0.0 else ()
        said = [trial.classes[name][place] for name in asked]
        words = [Word(float(one != judged[place]), float(one != trial.classes[FULL][place])) for one in said]
        for whom, transition in panel.compared(trial.judged, pair, words):
            if SEVERITY[transition.after] >= SEVERITY["demoted"]:
                return whom, count
    return "", MOST
