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
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loadtests.drift.answers import Answers, Floats, Labels
    from service.domain.drift import VariantReference
    from service.policy.drift.pairs import Pair

    Stream = Sequence[tuple[Pair, Mapping[str, int]]]

MOST: Final = 1000
REPEATS: Final = 2
SHIFTED: Final = "nothing, but inputs are shifted"
TWIN: Final = "quantized"
"""The tier of full's own network in a lower precision."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What every variant of a ladder answers, (rows, classes) each, while ``judged`` is run beside full."""

    fault: str
    judged: str
    outputs: Mapping[str, Floats]


class End(NamedTuple):
    """Who is out first, '' for nobody, after how many samples, and who without witnesses."""

    out: str
    delay: int
    without: str


@dataclass(frozen=True, slots=True)
class Ladder:
    """A model's variants: their tiers, and what is known of them."""

    tiers: Mapping[str, str]
    known: Mapping[str, VariantReference]

    def panel(self, names: Sequence[str]) -> Panel:
        """Return watches that have seen nothing."""
        full = self.known[FULL]
        watches = {name: VariantWatch(self.known[name], full) for name in names if name != FULL}
        panel = Panel(FULL, self.tiers, watches)
        watches[FULL] = VariantWatch(full, None, allowed_blame=panel.allowed_blame())
        return panel


def run_witnesses(models: Mapping[str, Answers], note: Callable[[str], None]) -> dict[str, Any]:
    """Return by fault how often full, and how often a smaller variant, is out first, and after how many samples."""
    ends: dict[str, list[End]] = {}
    for name, answers in models.items():
        published = answers.manifest.published
        ladder = Ladder({item.name: item.tier for item in published}, references_of(answers.manifest))
        for number, trial in enumerate(_trials(answers, ladder.tiers)):
            ends.setdefault(trial.fault, []).extend(_ends(trial, ladder, number))
        note(f"{name}: witnesses heard")
    return {fault: _figures(found) for fault, found in ends.items()}


def _ends(trial: Trial, ladder: Ladder, number: int) -> Iterator[End]:
    pairs = Classification().compare([trial.outputs[FULL]], [trial.outputs[trial.judged]])
    classes = {name: output.argmax(1) for name, output in trial.outputs.items()}  # (rows,) each
    for repeat in range(1 if trial.fault.startswith(SHIFTED) else REPEATS):
        places = np.random.default_rng([6, number, repeat]).integers(0, len(pairs), MOST).tolist()
        stream = [(pairs[place], {name: int(found[place]) for name, found in classes.items()}) for place in places]
        out, delay = _first_out(trial, ladder, stream, is_heard=True)
        yield End(out, delay, _first_out(trial, ladder, stream, is_heard=False)[0])


def _figures(ends: list[End]) -> dict[str, Any]:
    delays = [end.delay for end in ends if end.out]
    return {
        "cases": len(ends),
        "full_out_ratio": sum(end.out == FULL for end in ends) / len(ends),
        "smaller_out_ratio": sum(end.out not in ("", FULL) for end in ends) / len(ends),
        "smaller_out_without_ratio": sum(end.without not in ("", FULL) for end in ends) / len(ends),
        "median_delay_samples": median(delays) if delays else None,
    }


def _trials(answers: Answers, tiers: Mapping[str, str]) -> Iterator[Trial]:
    ladders = {"": tuple(tiers), ", no quantized form of full": tuple(name for name in tiers if tiers[name] != TWIN)}
    whole = answers.whole()
    conditions = [("nothing", whole.outputs)]
    conditions += [(SHIFTED, scene.outputs) for scene in answers.shifted if scene.strength == max(STRENGTHS)]
    conditions += [
        (
            f"full, by {_points(damage.output, whole.outputs[FULL], whole.labels)} points",
            whole.outputs | {FULL: damage.output},
        )
        for damage in answers.damaged
        if damage.variant == FULL
    ]
    for (words, names), (fault, outputs) in product(ladders.items(), conditions):
        if words and names == ladders[""]:
            continue
        kept = {name: outputs[name] for name in names}
        yield from (Trial(fault + words, name, kept) for name in names if name != FULL)
    smaller = [damage for damage in answers.damaged if damage.variant != FULL]
    for damage in smaller:
        one = whole.outputs | {damage.variant: damage.output}
        yield Trial("the smaller variant, by 5 points", damage.variant, one)
        others = {tiers[other.variant].split("-")[0]: other for other in smaller}
        for lineage, other in others.items():
            if lineage != tiers[damage.variant].split("-")[0]:
                yield Trial(
                    "it and another smaller one, by 5 points", damage.variant, one | {other.variant: other.output}
                )


def _points(damaged: Floats, whole: Floats, labels: Labels) -> int:
    """Return which of the wanted drops full's damage is nearest to, in points."""
    right = [float((output.argmax(1) == labels).mean()) for output in (whole, damaged)]
    return round(100 * min((drop for drop, _ in DROPS_OF_FULL), key=lambda drop: abs(right[0] - right[1] - drop)))


def _first_out(trial: Trial, ladder: Ladder, stream: Stream, *, is_heard: bool) -> tuple[str, int]:
    """Return who is demoted or quarantined first and after how many samples; '' and ``MOST`` if nobody is."""
    panel = ladder.panel(tuple(trial.outputs))
    for count, (pair, said) in enumerate(stream, start=1):
        asked = panel.witnesses_of(trial.judged) if is_heard and pair.loss > 0.0 else ()
        words = [Word(float(said[name] != said[trial.judged]), float(said[name] != said[FULL])) for name in asked]
        for whom, transition in panel.compared(trial.judged, pair, words):
            if SEVERITY[transition.after] >= SEVERITY["demoted"]:
                return whom, count
    return "", MOST
