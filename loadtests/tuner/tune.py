"""A tune from end to end: search, judge, and the policy file that comes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import service
from loadtests.tuner.judge import Judgement, Verdict, judge
from loadtests.tuner.notebook import Notebook
from loadtests.tuner.search import DEFAULT_BUDGET, Progress, Search
from loadtests.tuner.space import make_space
from loadtests.tuner.trials import AGAIN, Trials
from loadtests.tuner.writing import compose, outcome_of
from service.domain.policy_file import ModelPolicy, Provenance
from variants.machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from loadtests.tuner.question import Question
    from loadtests.tuner.request import Prepared, Request
    from loadtests.tuner.score import Figures
    from service.domain.policy_file import PolicyFile, TunedRegion


_RUNNERS_UP: Final = 2


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to search: a budget in runs of the tuning part, processes, and a file from which to go on."""

    budget: float = DEFAULT_BUDGET
    processes: int = 1
    state: Path | None = None


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """One of the search's next best, with its figures on the tuning part, one for each workload."""

    policy: ModelPolicy
    promised: tuple[Figures, ...]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it. ``policy`` is to be used: the candidate, or the base where the candidate is not proven."""

    base: ModelPolicy
    candidate: ModelPolicy
    judgement: Judgement
    promised: tuple[Figures, ...]
    """The candidate's figures on the tuning part, one for each workload."""
    spent: float
    tried: int
    wall_s: float
    is_interrupted: bool
    state_fault: str = ""
    """Why the state was not kept to the end."""
    runners_up: tuple[RunnerUp, ...] = ()
    """What may take the candidate's place where a gateway shows that it falls short, best first."""

    @property
    def is_proven(self) -> bool:
        """Whether the judge prefers the candidate to the base."""
        return self.judgement.verdict in (Verdict.BETTER, Verdict.NEEDED)

    @property
    def policy(self) -> ModelPolicy | None:
        """The policy to go by; ``None`` where none keeps the limits on arrivals unseen."""
        if self.is_proven:
            return self.candidate
        return None if self.judgement.base_missed else self.base

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The candidate's thresholds that differ from the base's."""
        pairs = {name: (getattr(self.base, name), getattr(self.candidate, name)) for name in ModelPolicy.model_fields}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def tune(question: Question, effort: Effort, on_progress: Callable[[Progress], None] = lambda _: None) -> Tuned:
    """Search and judge.

    Raises:
        LoadError: The state file does not belong to this question.
        ValueError: No policy can keep the memory limit.
    """
    began_s = time.monotonic()
    space = make_space(question)
    notebook = Notebook(question.digest(), effort.state)
    with Trials(question, space, notebook, processes=effort.processes) as trials:
        search = Search(trials, effort.budget, question.seed, on_progress)
        best = search.run()
        promised = trials.figures(AGAIN if best in search.settled else 1, best)
        runners_up = tuple(
            RunnerUp(space.policy(item), trials.figures(AGAIN, item)) for item in search.runners_up(_RUNNERS_UP)
        )
    base, candidate = space.policy(space.start), space.policy(best)
    judgement, is_hurried = _judged(question, base, candidate)
    return Tuned(
        base=base,
        candidate=candidate,
        judgement=judgement,
        promised=promised,
        spent=trials.spent,
        tried=len(notebook),
        wall_s=time.monotonic() - began_s,
        is_interrupted=search.is_interrupted or is_hurried,
        state_fault=notebook.fault,
        runners_up=runners_up,
    )


def instead(tuned: Tuned, question: Question, other: RunnerUp) -> Tuned:
    """Return the tune with another candidate, judged on the same unseen arrivals."""
    judgement = judge(question, tuned.base, other.policy)
    return replace(tuned, candidate=other.policy, promised=other.promised, judgement=judgement)


def _judged(question: Question, base: ModelPolicy, candidate: ModelPolicy) -> tuple[Judgement, bool]:
    """Judge; under one draw of luck alone where Ctrl-C says that it takes too long. A second one ends all."""
    try:
        return judge(question, base, candidate), False
    except KeyboardInterrupt:
        return judge(question, base, candidate, seeds=1), True


def _regions(base: PolicyFile) -> dict[str, TunedRegion]:
    return {} if base.provenance is None else base.provenance.regions


def policy_text(tuned: Tuned, prepared: Prepared, request: Request) -> str:
    """Return the policy file of a tune.

    Raises:
        ValueError: No policy is to be written.
    """
    if tuned.policy is None:
        raise ValueError("no policy keeps the limits")
    machine = describe_machine()
    named = [f"{item.name} sha256:{item.sha256[:16]}" for item in prepared.traces]
    judged = [f"{item.name} sha256:{item.sha256[:16]}" for item in prepared.judge_traces]
    provenance = Provenance(
        written_by=f"tiergate tune {service.__version__}, {datetime.now(UTC).isoformat(timespec='seconds')}",
        manifests={request.model: prepared.manifest_sha256},
        trace=", ".join(named) + (f"; judged on {', '.join(judged)}" if judged else ""),
        seed=request.seed,
        machine=f"{machine.cpu}, {machine.cores} cores, {machine.system}; {request.lanes} lanes",
        outcome=outcome_of(tuned.judgement),
        regions={**_regions(request.base), request.model: prepared.region},
    )
    return compose(request.base, request.model, tuned.policy, provenance)
