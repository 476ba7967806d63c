"""How soon a five-point drop is found, and how often there is a false alarm: every detector on the same streams."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from loadtests.drift import detectors
from loadtests.drift.answers import FULL
from loadtests.drift.detectors import Contender
from loadtests.drift.references import references_of
from loadtests.drift.streams import RANDOM, draw, faults_of
from service.policy.drift.watch import VariantWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtests.drift.answers import Answers
    from loadtests.drift.detectors import Detector, Kind
    from loadtests.drift.spreading import Spread
    from loadtests.drift.streams import Fault, Pairs
    from service.domain.drift import VariantReference

RUN_IN: Final = 500
"""Clean samples before the fault: a detector that needs a past gets one."""
MOST: Final = 2000
REPEATS: Final = 20
"""Times that each fault is drawn."""
CLEAN_SAMPLES: Final = 10_000
"""Of each variant, for each detector."""
REQUESTS: Final = 100_000
SHARE: Final = 0.01
KINDS_OF_FAULT: Final = (RANDOM, "damaged weights")


@dataclass(frozen=True, slots=True)
class Calm:
    """A variant's clean pairs, and what its manifest says of it and of full."""

    model: str
    number: int
    pairs: Pairs
    reference: VariantReference
    full: VariantReference


@dataclass(frozen=True, slots=True)
class Struck:
    """A variant with a fault, who is to find it, and how often."""

    model: str
    number: int
    fault: Fault
    reference: VariantReference
    contenders: tuple[Contender, ...]
    repeats: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """What happened on clean pairs: alarms by contender, and transitions of the whole watch by what came of them."""

    model: str
    alarms: dict[Contender, int]
    transitions: Counter[str]
    samples: int


@dataclass(frozen=True, slots=True)
class Found:
    """After how many samples each contender found a fault, once for each repeat; ``MOST`` where it did not."""

    model: str
    kind: str
    delays: dict[Contender, list[int]]


Part = TypeVar("Part", Quiet, Found)


def run_detection(
    models: Mapping[str, Answers], spread: Spread, note: Callable[[str], None], repeats: int = REPEATS
) -> dict[str, Any]:
    """Return the figures of every detector, each fault drawn so often, and of the whole watch on clean replays."""
    chance = np.random.default_rng(1)
    known = {name: references_of(answers.manifest) for name, answers in models.items()}
    faults = [(name, fault) for name, answers in models.items() for fault in faults_of(answers, chance)]
    clean = {(model, fault.variant): fault.clean for model, fault in faults}
    calm = [
        Calm(model, number, pairs, known[model][variant], known[model][FULL])
        for number, ((model, variant), pairs) in enumerate(clean.items())
    ]
    quiet = spread(stay_calm, calm)
    note(f"{len(calm)} clean streams watched")
    contenders = _contenders(quiet)
    struck = [
        Struck(model, number, fault, known[model][fault.variant], tuple(contenders.values()), repeats)
        for number, (model, fault) in enumerate(faults)
    ]
    found = spread(find, struck)
    note(f"{len(struck)} faults looked for")
    return {
        "detectors": {title: _figures(contender, found, quiet) for title, contender in contenders.items()},
        "clean replay": _replay(quiet) | {"by model": {name: _replay(_of(name, quiet)) for name in models}},
    }


def stay_calm(calm: Calm) -> Quiet:
    """Give every detector of every setting, and the whole watch in all its states, clean pairs."""
    every = [Contender(kind, setting) for kind, grid in detectors.GRIDS.items() for setting in grid]
    alarms = {contender: sum(_alarms(contender.make(calm.reference), calm)) for contender in every}
    watch = VariantWatch(calm.reference, calm.full)
    pairs = islice(draw(calm.pairs, np.random.default_rng([4, calm.number])), CLEAN_SAMPLES)
    passed = (watch.compared(pair) for pair in pairs)
    transitions = Counter(str(item.after) for item in passed if item is not None)
    return Quiet(calm.model, alarms, transitions, CLEAN_SAMPLES)


def find(struck: Struck) -> Found:
    """Give each detector clean pairs and then the fault, some times over."""
    kind = struck.fault.name if struck.fault.name in KINDS_OF_FAULT else KINDS_OF_FAULT[1]
    delays = {
        contender: [
            _delay(contender.make(struck.reference), struck.fault, 1000 * struck.number + repeat)
            for repeat in range(struck.repeats)
        ]
        for contender in struck.contenders
    }
    return Found(struck.model, kind, delays)


def _contenders(quiet: Sequence[Quiet]) -> dict[str, Contender]:
    """Return each kind at its default, and some tuned to these very streams, by title."""
    length, delta, limit = (_tuned(kind, quiet) for kind in ("tiergate", "ADWIN", "Page-Hinkley"))
    default = {kind: Contender(kind, grid[0]) for kind, grid in detectors.GRIDS.items()}
    return {
        "tiergate": default["tiergate"],
        f"tiergate (tuned: run length {length.setting:g})": length,
        "river ADWIN (defaults)": default["ADWIN"],
        f"river ADWIN (tuned: delta {delta.setting:g})": delta,
        "river Page-Hinkley (defaults)": default["Page-Hinkley"],
        f"river Page-Hinkley (tuned: threshold {limit.setting:g})": limit,
        "river KSWIN (defaults, score distance)": default["KSWIN"],
        f"PSI above {detectors.PSI_LIMIT:g} over {detectors.PSI_WINDOW}": default["PSI"],
    }


def _tuned(kind: Kind, quiet: Sequence[Quiet]) -> Contender:
    """Return the last setting of a kind's grid before the first with more than one false alarm in 1,000 samples."""
    chosen = Contender(kind, detectors.GRIDS[kind][0])
    for contender in (Contender(kind, setting) for setting in detectors.GRIDS[kind][1:]):
        if _false_alarms(contender, quiet) > 1.0:
            break
        chosen = contender
    return chosen


def _false_alarms(contender: Contender, quiet: Sequence[Quiet]) -> float:
    """Return how many there were in 100,000 requests."""
    return sum(item.alarms[contender] for item in quiet) * REQUESTS * SHARE / sum(item.samples for item in quiet)


def _alarms(detector: Detector, calm: Calm) -> list[bool]:
    pairs = islice(draw(calm.pairs, np.random.default_rng([3, calm.number])), CLEAN_SAMPLES)
    return [detector.add(pair) for pair in pairs]


def _delay(detector: Detector, fault: Fault, seed: int) -> int:
    """Return the samples from the fault to the alarm."""
    chance = np.random.default_rng([2, seed])
    for pair in islice(draw(fault.clean, chance), RUN_IN):
        detector.add(pair)
    stream = enumerate(islice(draw(fault.faulty, chance), MOST), start=1)
    return next((place for place, pair in stream if detector.add(pair)), MOST)


def _figures(contender: Contender, found: Sequence[Found], quiet: Sequence[Quiet]) -> dict[str, Any]:
    by_kind = {kind: [item for item in found if item.kind == kind] for kind in KINDS_OF_FAULT}
    models = sorted({item.model for item in found})
    every = _delays(contender, found)
    return {
        "median_delay_samples": median(every),
        "p90_delay_samples": float(np.quantile(every, 0.9)),
        "found_ratio": sum(delay < MOST for delay in every) / len(every),
        "median_by_fault": {kind: median(_delays(contender, items)) for kind, items in by_kind.items() if items},
        "median_by_model": {name: median(_delays(contender, _of(name, found))) for name in models},
        "delays": {kind: sorted(_delays(contender, items)) for kind, items in by_kind.items()},
        "false_alarms": sum(item.alarms[contender] for item in quiet),
        "clean_samples": sum(item.samples for item in quiet),
        "false_alarms_per_100k_requests": _false_alarms(contender, quiet),
    }


def _delays(contender: Contender, found: Sequence[Found]) -> list[int]:
    return [delay for item in found for delay in item.delays[contender]]


def _replay(quiet: Sequence[Quiet]) -> dict[str, Any]:
    counts = sum((item.transitions for item in quiet), Counter[str]())
    samples = sum(item.samples for item in quiet)
    return {
        "requests": int(samples / SHARE),
        "transitions": dict(counts),
        "demotions_per_100k_requests": (counts["demoted"] + counts["quarantined"]) * REQUESTS * SHARE / samples,
        "warnings_per_100k_requests": counts["warned"] * REQUESTS * SHARE / samples,
    }


def _of(model: str, items: Sequence[Part]) -> list[Part]:
    return [item for item in items if item.model == model]
