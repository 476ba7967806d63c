"""Confirm against the real gateway: the same unseen arrivals, played to `tiergate serve` under each policy in turn.

Each round starts a gateway on loopback with the base policy, with the tuned one and with the search's next best, and
sends each the busiest stretch of the judging part, open loop. The simulator plays the same stretch, so that its word
can be held against the gateway's. A tuned policy whose attainment is surely below the floor (Wilson's interval over all
its valid runs) gives way to the first of the next best that is not and that the judge accepts, else is refused; a run
that the load generator declares invalid says nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests import gateway
from loadtests.events import newest_version
from loadtests.h2load import LoadError
from loadtests.inputs import inputs_of_recipe
from loadtests.intervals import share_interval
from loadtests.scenario import ClassOfRequests, Scenario, Trace
from loadtests.trial import Options, Site, run_trial
from loadtests.tuner.score import figures_of, play
from loadtests.tuner.tune import instead
from loadtests.tuner.writing import compose
from service.domain.policy_file import ModelPolicy, Provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtests.plan import Criticality
    from loadtests.simulator.workload import Workload
    from loadtests.tuner.question import Question
    from loadtests.tuner.request import Request
    from loadtests.tuner.tune import RunnerUp, Tuned

TUNED: Final = "tuned"
ROUNDS: Final = 2
_FEWEST: Final = 20
_MOST_CLASSES: Final = 255
_CRITICALITIES: Final[dict[int, Criticality]] = {0: "critical", 1: "normal", 2: "sheddable"}


@dataclass(frozen=True, slots=True)
class Confirmed:
    """One policy at the gateway; ``faults`` says why runs were invalid, ``accuracy`` is ``None`` without labels."""

    name: str
    offered: int
    on_time: int
    correct_on_time: float | None
    predicted_attainment: float
    predicted_accuracy: float
    faults: tuple[str, ...]

    @property
    def attainment(self) -> float:
        """On time over offered, in the valid runs."""
        return self.on_time / self.offered if self.offered else 0.0

    @property
    def accuracy(self) -> float | None:
        """Effective accuracy in the valid runs."""
        return None if self.correct_on_time is None or not self.offered else self.correct_on_time / self.offered

    def shortfall(self, floor: float) -> float:
        """Return by how much attainment is surely below the floor, 0 where it may keep it."""
        if not self.offered:
            return 0.0
        return max(0.0, floor - share_interval(self.on_time, self.offered)[1])


def confirm(
    request: Request,
    question: Question,
    policies: dict[str, ModelPolicy],
    seconds: float,
    on_run: Callable[[str], None] = lambda _: None,
) -> dict[str, Confirmed]:
    """Play ``seconds`` of the judging part to a gateway under each policy, in turn, ``ROUNDS`` times.

    Raises:
        LoadError: The gateway does not start, or the stretch has too few arrivals.
        KeyboardInterrupt: Ctrl-C came; half a confirmation says nothing.
    """
    stretch, labelled = busiest(question.judging[0], seconds), _has_labels(request)
    counts: dict[str, list[Confirmed]] = {name: [] for name in policies}
    with tempfile.TemporaryDirectory() as folder:
        scenario = _scenario(request, stretch, seconds, Path(folder) / "stretch.csv")
        for number in range(ROUNDS):
            for name, policy in policies.items():
                on_run(f"gateway, round {number + 1}: {name}")
                file = Path(folder) / f"{name}.yaml"
                provenance = Provenance(written_by="tiergate tune --confirm")
                file.write_text(compose(request.base, request.model, policy, provenance), encoding="utf-8")
                counts[name].append(_run(request, scenario, file, labelled=labelled))
    return {name: _sum(found, question, policies[name], stretch) for name, found in counts.items()}


def policies_of(tuned: Tuned) -> dict[str, ModelPolicy]:
    """Return what is to be played, by name: the next best only where the tuned policy is to be used."""
    others = {name: other.policy for name, other in _runners_up(tuned).items()}
    return {"base": tuned.base, TUNED: tuned.candidate} | others


def best_confirmed(tuned: Tuned, question: Question, found: Mapping[str, Confirmed]) -> tuple[Tuned, float]:
    """Return the tune with the best candidate that the gateway does not belie, and by how much it still falls short.

    The tune as it is where the gateway belies nothing, or all that the judge would accept.
    """
    floor = question.limits.attainment
    short = found[TUNED].shortfall(floor)
    if not short or not tuned.is_proven:
        return tuned, 0.0
    for name, runner_up in _runners_up(tuned).items():
        if found[name].offered and not found[name].shortfall(floor):
            other = instead(tuned, question, runner_up)
            if other.is_proven:
                return other, 0.0
    return tuned, short


def _runners_up(tuned: Tuned) -> dict[str, RunnerUp]:
    return {f"next-{number}": item for number, item in enumerate(tuned.runners_up if tuned.is_proven else (), start=1)}


def busiest(workload: Workload, seconds: float) -> Workload:
    """Return the stretch of so many seconds, starting at an arrival, that has the most arrivals."""
    ends = np.searchsorted(workload.arrival_s, workload.arrival_s + seconds)
    first = int(np.argmax(ends - np.arange(len(workload))))
    return workload.part(np.arange(first, ends[first]))


def _scenario(request: Request, stretch: Workload, seconds: float, path: Path) -> Scenario:
    times = stretch.arrival_s - stretch.arrival_s[0]
    np.savetxt(path, np.append(times, seconds), header="arrival_s", comments="")
    return Scenario(
        name="confirm",
        model=request.model,
        duration_s=seconds,
        warmup_s=1.0,
        seed=request.seed,
        arrivals=Trace(kind="trace", file=path, rate_hz=max(_FEWEST, len(stretch)) / seconds, scaling="time"),
        mix=mix_of(stretch),
    )


def mix_of(stretch: Workload) -> tuple[ClassOfRequests, ...]:
    """Return the kinds of requests in a stretch with their shares, drawn anew by the load generator.

    Of more than 255 kinds the most frequent; timeouts are the load generator's own.
    """
    columns = np.stack([stretch.budget_s, stretch.criticality, stretch.kind])  # (3, N)
    found, counts = np.unique(columns, axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST_CLASSES]
    mix = []
    for number, place in enumerate(order):
        budget_s, criticality, kind = found[:, place]
        of = stretch.kinds[int(kind)]
        mix.append(
            ClassOfRequests(
                name=f"kind-{number}",
                share=float(counts[place]),
                budget_ms=1e3 * float(budget_s),
                hardware=of.hardware,
                criticality=_CRITICALITIES[int(criticality)],
                names_budget=of.names_budget,
            )
        )
    return tuple(mix)


def _has_labels(request: Request) -> bool:
    """Tell whether the rows that the model was tested on can be had; without them random values are sent."""
    try:
        inputs_of_recipe(newest_version(request.repository, request.model)[1])
    except LoadError:
        return False
    return True


def _run(request: Request, scenario: Scenario, file: Path, *, labelled: bool) -> Confirmed:
    core, others = gateway.split_cores()
    flags = ("--policy", str(file), "--lanes", str(request.lanes))
    with gateway.running_gateway(request.repository, others, flags) as address:
        site = Site(address, request.repository if labelled else None, core)
        summary = run_trial(scenario, site, Options()).summary
    if summary.is_interrupted:  # heard by the load generator, which ends its run in order
        raise KeyboardInterrupt
    whole = summary.all
    if summary.faults:
        return Confirmed(file.stem, 0, 0, None, 0.0, 0.0, summary.faults)
    good = None if whole.effective_accuracy is None else whole.effective_accuracy.value * whole.offered
    return Confirmed(file.stem, whole.offered, whole.on_time, good, 0.0, 0.0, ())


def _sum(found: list[Confirmed], question: Question, policy: ModelPolicy, stretch: Workload) -> Confirmed:
    figures = figures_of(play(question, policy, stretch, question.seed))
    good = [item.correct_on_time for item in found if item.correct_on_time is not None]
    return Confirmed(
        name=found[0].name,
        offered=sum(item.offered for item in found),
        on_time=sum(item.on_time for item in found),
        correct_on_time=sum(good) if good else None,
        predicted_attainment=figures.attainment,
        predicted_accuracy=figures.accuracy,
        faults=tuple(fault for item in found for fault in item.faults),
    )
