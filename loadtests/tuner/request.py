"""What a user asks for, turned into a question: the built model, the traces, the budgets, the limits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests.events import newest_version
from loadtests.fitted import FITS, draw_stand_in
from loadtests.h2load import LoadError
from loadtests.simulator.comparison import at_load
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import read_answer_sheet, read_ladder
from loadtests.simulator.workload import Kind
from loadtests.traces import describe, read_trace
from loadtests.tuner.asks import Terms, as_recorded
from loadtests.tuner.question import Limits, Question, ask, cut, split
from loadtests.tuner.region import region_of
from service.domain.policy_file import ModelPolicy, PolicyFile
from service.policy.costs import Plan
from variants.manifest import ManifestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from loadtests.simulator.ladder import Ladder
    from loadtests.simulator.workload import Workload
    from loadtests.tuner.asks import Asks
    from service.domain.policy_file import TunedRegion
    from variants.manifest import CascadeManifest

TIMEOUT_S: Final = 5.0
STAND_IN: Final = "stand-in:"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast traces are played: at a mean rate, at a share of what always-full needs of all lanes, or as recorded."""

    rate_hz: float | None = None
    load_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A trace by its name and the sha256 of its content; a recording knows what each request asked for, too."""

    name: str
    sha256: str
    times_s: NDArray[np.float64]
    asks: Asks | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A tune as it was asked for; traces are names, or have been read already.

    Without traces to judge on, the last ``judged`` share of each trace judges. Without a ``mix`` of budgets requests
    ask for what was recorded; those of a plain trace name no budget.
    """

    model: str
    repository: Path
    mix: tuple[tuple[float, float], ...] | None
    traces: tuple[str | Source, ...]
    judge_traces: tuple[str, ...] = ()
    judged: float = 0.4
    pace: Pace = field(default_factory=Pace)
    limits: Limits = field(default_factory=Limits)
    budget_s: float = 0.1
    lanes: int = 2
    answers: Path | None = None
    base: PolicyFile = field(default_factory=PolicyFile)
    machine: Machine = field(default_factory=lambda: Machine(is_learning=True))
    seed: int = 0
    column: str | None = None
    """Of the times in the traces' files; ``None`` where they are of a known layout."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The question, and what the provenance names: the manifest's digest, the traces, the traffic that was seen."""

    question: Question
    region: TunedRegion
    manifest_sha256: str
    traces: tuple[Source, ...]
    judge_traces: tuple[Source, ...]


def prepare(request: Request) -> Prepared:
    """Read everything that a request names.

    Raises:
        LoadError: Something is not there, or not valid.
    """
    folder, _ = newest_version(request.repository, request.model)
    ladder = _ladder(request, folder)
    sources = tuple(item if isinstance(item, Source) else read_source(item, request) for item in request.traces)
    judges = tuple(read_source(name, request) for name in request.judge_traces)
    played = [_play(source, request, ladder) for source in sources]
    if judges:
        tuning, judging = played, [_play(source, request, ladder) for source in judges]
    else:
        parts = [split(workload, request.judged) for workload in played]
        tuning, judging = [first for first, _ in parts], [last for _, last in parts]
    question = Question(
        ladder=ladder,
        tuning=tuple(cut(workload) for workload in tuning),
        judging=tuple(cut(workload) for workload in judging),
        limits=request.limits,
        lanes=request.lanes,
        machine=request.machine,
        seed=request.seed,
    )
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return Prepared(question, region_of([*tuning, *judging]), digest, sources, judges)


def read_source(name: str, request: Request) -> Source:
    """Return a trace by its file, or a fitted stand-in by ``stand-in:code`` or ``stand-in:conv``.

    Raises:
        LoadError: There is none of that name, or it cannot be read.
    """
    if name.startswith(STAND_IN):
        fit = FITS.get(name.removeprefix(STAND_IN))
        if fit is None:
            raise LoadError(f"trace '{name}': stand-ins are {', '.join(STAND_IN + item for item in FITS)}")
        times = draw_stand_in(fit, fit.target.duration_s, request.seed)
        return Source(name, hashlib.sha256(times.tobytes()).hexdigest(), times)
    times = read_trace(Path(name), column=request.column, seed=request.seed)
    return Source(Path(name).name, hashlib.sha256(Path(name).read_bytes()).hexdigest(), times)


def shape_in_words(workload: Workload) -> str:
    """Return what arrivals are like, in a line."""
    shape = describe(workload.arrival_s - workload.arrival_s[0])
    rate = f"{shape.requests} requests in {shape.duration_s:.3g} s, {shape.rate_hz:.3g} a second"
    return f"{rate}, gap CV {shape.gap_cv:.1f}"


def _ladder(request: Request, folder: Path) -> Ladder:
    named = request.base.of(request.model)
    said: dict[str, Any] = {**named.model_dump(exclude_unset=True), "default_budget_ms": 1e3 * request.budget_s}
    if request.answers is None:  # what cannot be simulated is not turned on unasked
        said.setdefault("cascades", False)
    policy = ModelPolicy.model_validate(said)
    try:
        answers = None if request.answers is None else read_answer_sheet(request.answers)
        ladder = read_ladder(folder, policy, answers)
    except (ManifestError, ValueError, KeyError, OSError) as error:
        raise LoadError(f"model '{request.model}' cannot be simulated: {error}") from None
    if not any(variant.is_routable for variant in ladder.variants):
        raise LoadError(f"model '{request.model}' has no variant that routing may choose")
    if answers is None:
        return ladder
    _, manifest = newest_version(request.repository, request.model)
    return replace(ladder, plans=tuple(_plan(item) for item in manifest.cascades))


def _plan(item: CascadeManifest) -> Plan:
    name = f"{item.variant}+{item.escalate_to}@{item.escalated_ratio:.3f}"
    return Plan(name, item.variant, item.escalate_to, item.margin, item.escalated_ratio, item.accuracy)


def _play(source: Source, request: Request, ladder: Ladder) -> Workload:
    times, pace = source.times_s, request.pace
    if pace.load_ratio is not None:
        times = at_load(times, pace.load_ratio, Fleet((ladder,), 1, request.lanes, machine=request.machine))
    elif pace.rate_hz is not None:
        span_s = float(times[-1] - times[0])
        times = (times - times[0]) * (len(times) / pace.rate_hz / span_s)
    if request.mix is not None:
        return ask(times, request.mix, TIMEOUT_S, request.seed)
    if source.asks is not None:
        terms = Terms(request.budget_s, TIMEOUT_S, request.base.hardware_classes)
        return as_recorded(times, source.asks, ladder, terms)
    unsaid = Kind(names_budget=False)
    return ask(times, ((request.budget_s, 1.0),), TIMEOUT_S, request.seed, unsaid)
