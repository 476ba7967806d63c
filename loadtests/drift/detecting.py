"""How soon a five-point drop is found, and how often there is a false alarm: every detector on the same streams."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.drift import detectors
from loadtests.drift.references import present, references_of
from loadtests.drift.streams import draw, faults_of
from service.domain.drift import DriftPolicy
from service.policy.drift.classification import Classification
from service.policy.drift.watch import VariantWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtests.drift.answers import Answers
    from loadtests.drift.detectors import Maker
    from loadtests.drift.streams import Fault, Pairs
    from service.domain.drift import VariantReference

    MakerOf = Callable[[str, str], Maker]
    Faults = list[tuple[str, Fault]]
    Known = Mapping[str, Mapping[str, VariantReference]]

RUN_IN: Final = 500
"""Clean samples before the fault: a detector that needs a past gets one."""
MOST: Final = 2000
REPEATS: Final = 40
CLEAN_SAMPLES: Final = 10_000
"""Of each variant, for each detector."""
REQUESTS: Final = 100_000
SHARE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Contest:
    """One detector's figures over all faults of all models; delays in samples, ``MOST`` where it was not found."""

    delays: dict[str, list[int]]
    alarms: int
    samples: int


def run_detection(models: Mapping[str, Answers], note: Callable[[str], None]) -> dict[str, Any]:
    """Return the figures of every detector, and of the whole watch on clean replays."""
    chance = np.random.default_rng(1)
    faults = [(name, fault) for name, answers in models.items() for fault in faults_of(answers, chance)]
    known = {name: references_of(answers.manifest) for name, answers in models.items()}
    found: dict[str, Any] = {}
    for title, make in _contenders(faults, known).items():
        contest = _judge(faults, make)
        found[title] = _figures(contest)
        note(f"{title}: median delay {found[title]['median_delay_samples']} samples")
    return {"detectors": found, "clean replay": _replay(models, known, note)}


def _contenders(faults: Faults, known: Known) -> dict[str, MakerOf]:
    """Return for each title what makes its detector for a model's variant."""

    def ours(run_length: float) -> MakerOf:
        policy = DriftPolicy(demote_run_length=run_length)

        def of(model: str, variant: str) -> Maker:
            allowed = present(known[model][variant].allowed, f"allowed loss of {variant}")
            return lambda: detectors.Ours(allowed, policy)

        return of

    def plain_psi(model: str, variant: str) -> Maker:
        reference = present(known[model][variant].log_odds, f"confidence of {variant}")
        return lambda: detectors.PlainPsi(reference)

    def same(make: Callable[[float], Maker]) -> Callable[[float], MakerOf]:
        return lambda setting: lambda _model, _variant: make(setting)

    adwin, page_hinkley = same(detectors.adwin), same(detectors.page_hinkley)
    length = _most_sensitive(faults, detectors.RUN_LENGTHS, ours)
    delta = _most_sensitive(faults, detectors.ADWIN_DELTAS, adwin)
    limit = _most_sensitive(faults, detectors.PAGE_HINKLEY_LIMITS, page_hinkley)
    return {
        "tiergate": ours(detectors.RUN_LENGTHS[0]),
        f"tiergate (tuned: run length {length:g})": ours(length),
        "river ADWIN (defaults)": adwin(detectors.ADWIN_DELTAS[0]),
        f"river ADWIN (tuned: delta {delta:g})": adwin(delta),
        "river Page-Hinkley (defaults)": page_hinkley(detectors.PAGE_HINKLEY_LIMITS[0]),
        f"river Page-Hinkley (tuned: threshold {limit:g})": page_hinkley(limit),
        "river KSWIN (defaults, score distance)": same(lambda _: detectors.kswin)(0.0),
        f"PSI above {detectors.PSI_LIMIT:g} over {detectors.PSI_WINDOW}": plain_psi,
    }


def _most_sensitive(faults: Faults, grid: tuple[float, ...], make: Callable[[float], MakerOf]) -> float:
    """Return the last setting of ``grid`` with at most one false alarm in a thousand clean samples."""
    chosen, streams = grid[0], _clean_streams(faults)
    for setting in grid[1:]:
        found = (_false_alarms(make(setting)(*at), clean, number) for number, (at, clean) in enumerate(streams.items()))
        if sum(found) * REQUESTS * SHARE > CLEAN_SAMPLES * len(streams):
            return chosen
        chosen = setting
    return chosen


def _judge(
    faults: Faults,
    make: MakerOf,
) -> Contest:
    delays: dict[str, list[int]] = defaultdict(list)
    for number, (model, fault) in enumerate(faults):
        kind = "wrong at random" if fault.name == "wrong at random" else "damaged weights"
        for repeat in range(REPEATS):
            delays[kind].append(_delay(make(model, fault.variant), fault, 1000 * number + repeat))
    streams = _clean_streams(faults)
    alarms = sum(_false_alarms(make(*place), clean, number) for number, (place, clean) in enumerate(streams.items()))
    return Contest(dict(delays), alarms, CLEAN_SAMPLES * len(streams))


def _clean_streams(faults: Faults) -> dict[tuple[str, str], Pairs]:
    return {(model, fault.variant): fault.clean for model, fault in faults}


def _delay(make: Maker, fault: Fault, seed: int) -> int:
    """Return the samples from the fault to the alarm."""
    chance, detector = np.random.default_rng([2, seed]), make()
    for pair in islice(draw(fault.clean, chance), RUN_IN):
        detector.add(pair)
    stream = enumerate(islice(draw(fault.faulty, chance), MOST), start=1)
    return next((place for place, pair in stream if detector.add(pair)), MOST)


def _false_alarms(make: Maker, clean: Pairs, seed: int) -> int:
    detector = make()
    return sum(detector.add(pair) for pair in islice(draw(clean, np.random.default_rng([3, seed])), CLEAN_SAMPLES))


def _figures(contest: Contest) -> dict[str, Any]:
    every = [delay for delays in contest.delays.values() for delay in delays]
    return {
        "median_delay_samples": median(every),
        "p90_delay_samples": float(np.quantile(every, 0.9)),
        "found_ratio": sum(delay < MOST for delay in every) / len(every),
        "median_by_fault": {kind: median(delays) for kind, delays in contest.delays.items()},
        "delays": {kind: sorted(delays) for kind, delays in contest.delays.items()},
        "false_alarms": contest.alarms,
        "clean_samples": contest.samples,
        "false_alarms_per_100k_requests": contest.alarms * REQUESTS * SHARE / contest.samples,
    }


def _replay(
    models: Mapping[str, Answers],
    known: Known,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Give the whole watch clean pairs and count what it does: all states, at 1 % of requests."""
    counts: dict[str, int] = defaultdict(int)
    samples = 0
    for model, answers in models.items():
        outputs, full = answers.clean.outputs, known[model]["full"]
        for number, variant in enumerate(name for name in outputs if name != "full"):
            pairs = Classification().compare([outputs["full"]], [outputs[variant]])
            watch = VariantWatch(known[model][variant], full)
            for pair in islice(draw(pairs, np.random.default_rng([4, number])), CLEAN_SAMPLES):
                transition = watch.compared(pair)
                if transition is not None:
                    counts[transition.after] += 1
            samples += CLEAN_SAMPLES
    figures = {
        "requests": int(samples / SHARE),
        "transitions": dict(counts),
        "demotions_per_100k_requests": (counts["demoted"] + counts["quarantined"]) * REQUESTS * SHARE / samples,
        "warnings_per_100k_requests": counts["warned"] * REQUESTS * SHARE / samples,
    }
    note(f"clean replay: {figures}")
    return figures
