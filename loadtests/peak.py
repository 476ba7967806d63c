"""Find the highest rate at which the 99th percentile of latency stays within a bound.

Each step is an open-loop run of Poisson arrivals at one rate. The rate doubles until a step fails, and then the gap
between the best pass and the least failure is halved until it is small. A step stops as soon as its verdict is certain
at 99 % (MLPerf's early stopping, Reddi et al. 2020): with k of n requests over the bound (a refusal counts as over),

    pass    P(Binomial(n, 1 %) <= k) <= 1 %      459 requests with none over, 662 with one, ...
    fail    P(Binomial(n, 1 %) >= k) <= 1 %

A step is looked at up to four times, which makes the chance of a wrong verdict at most 4 %. What is still open then
fails: the rate was not proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from rich.table import Table

from loadtests import gateway
from loadtests.figures import Figures
from loadtests.h2load import LoadError
from loadtests.intervals import binomial_cdf, samples_for_bound
from loadtests.plan import Job, Protocol
from loadtests.recording import Status
from loadtests.runner import run_job
from loadtests.scenario import ClassOfRequests, Poisson, Scenario
from loadtests.trial import find_inputs, make_schedule
from loadtests.wording import count, duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from rich.console import Console

    from loadtests.runner import Run
    from loadtests.trial import Options, Site

    Verdict = Literal["pass", "fail", "open"]

_SHARE: Final = 0.01
_DOUBT: Final = 0.01
_LEAST_S: Final = 2.0
_PIECES: Final = 4
_MOST_HZ: Final = 100_000.0
_INTERRUPTED: Final = "interrupted"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; ``precision_ratio`` is how close the answer gets, as a share of the rate."""

    bound_s: float = 0.05
    budget_s: float = 0.05
    model: str = "digits"
    protocol: Protocol = "http-binary"
    variant: str = ""
    start_hz: float = 50.0
    precision_ratio: float = 0.05
    seed: int = 0


class Step(Figures):
    """One rate that was tried."""

    rate_hz: float
    requests: int
    over: int
    p99_s: float
    verdict: str
    faults: tuple[str, ...]

    def __str__(self) -> str:
        fault = f"; {'; '.join(self.faults)}" if self.faults else ""
        over = f"{count(self.over)} of {count(self.requests)} over"
        return f"{self.rate_hz:,.0f}/s: p99 {duration(self.p99_s)}, {over}: {self.verdict}{fault}"


class Peak(Figures):
    """The highest rate that passed, 0 for none, the lowest that failed, and every step."""

    rate_hz: float
    failed_hz: float | None
    bound_s: float
    steps: tuple[Step, ...]

    @property
    def is_interrupted(self) -> bool:
        """Tell whether the search was ended before its answer."""
        return bool(self.steps) and self.steps[-1].verdict == _INTERRUPTED


def find_peak(question: Question, site: Site, options: Options, on_step: Callable[[Step], None]) -> Peak:
    """Search the peak rate; Ctrl-C ends the search with what passed so far.

    Raises:
        LoadError: The server cannot be asked, or the first rate is above all that is tried.
    """
    if question.start_hz > _MOST_HZ:
        raise LoadError(f"--start is {question.start_hz:g}; at most {_MOST_HZ:g} requests/s are tried")
    steps: list[Step] = []
    passed, failed = 0.0, None
    while (rate_hz := next_rate(passed, failed, question)) is not None:
        steps.append(_step(question, site, options, rate_hz))
        on_step(steps[-1])
        if steps[-1].verdict == _INTERRUPTED:
            break
        if steps[-1].verdict == "pass":
            passed = rate_hz
        else:
            failed = rate_hz
    return Peak(rate_hz=passed, failed_hz=failed, bound_s=question.bound_s, steps=tuple(steps))


def next_rate(passed_hz: float, failed_hz: float | None, question: Question) -> float | None:
    """Return the next rate to try, or ``None`` when the answer is close enough or no rate is worth trying."""
    if failed_hz is None:
        doubled = 2 * passed_hz or question.start_hz
        return doubled if doubled <= _MOST_HZ else None
    if failed_hz - passed_hz <= question.precision_ratio * failed_hz or failed_hz < question.start_hz / 64:
        return None
    return (passed_hz + failed_hz) / 2


def judge(requests: int, over: int) -> Verdict:
    """Return what is certain at 99 % about the 99th percentile, given how many requests were over the bound."""
    if requests >= samples_for_bound(1.0 - _SHARE, 0) and binomial_cdf(over, requests, _SHARE) <= _DOUBT:
        return "pass"
    if over and 1.0 - binomial_cdf(over - 1, requests, _SHARE) <= _DOUBT:
        return "fail"
    return "open"


def scenario_of(question: Question, rate_hz: float, duration_s: float, piece: int = 0) -> Scenario:
    """Return one piece of a step as a scenario."""
    kind = ClassOfRequests(name="all", budget_ms=question.budget_s * 1e3, variant=question.variant)
    return Scenario(
        name="peak",
        model=question.model,
        protocol=question.protocol,
        duration_s=duration_s,
        warmup_s=0.5,
        seed=question.seed + piece,
        arrivals=Poisson(kind="poisson", rate_hz=rate_hz),
        mix=(kind,),
    )


def draw(peak: Peak, console: Console) -> None:
    """Print what was found."""
    table = Table(title=f"p99 within {duration(peak.bound_s)}")
    for column in ("rate", "requests", "over the bound", "p99", "verdict"):
        table.add_column(column, justify="right")
    for step in sorted(peak.steps, key=lambda item: item.rate_hz):
        table.add_row(
            f"{step.rate_hz:,.1f}/s", count(step.requests), count(step.over), duration(step.p99_s), step.verdict
        )
    console.print(table)
    ended = "; interrupted, the peak may be higher" if peak.is_interrupted else ""
    if peak.rate_hz:
        console.print(f"peak: [bold]{peak.rate_hz:,.1f}[/bold] requests/s{ended}")
    else:
        console.print(f"no rate kept the bound{ended}")


def _step(question: Question, site: Site, options: Options, rate_hz: float) -> Step:
    """Run one rate, in pieces, until its verdict is certain."""
    length_s = max(_LEAST_S, 1.5 * samples_for_bound(1.0 - _SHARE, 0) / rate_hz)
    latencies: list[float] = []
    verdict: Verdict = "open"
    faults: tuple[str, ...] = ()
    for piece in range(_PIECES):
        run = _run(scenario_of(question, rate_hz, length_s, piece), site, options)
        _check_asked_rightly(run, question)
        latencies += _latencies_s(run)
        faults = run.lag.faults
        over = sum(time_s > question.bound_s for time_s in latencies)
        verdict = judge(len(latencies), over)
        if verdict != "open" or run.recording.is_interrupted:
            break
    named: str = "fail" if verdict == "fail" else verdict if not faults else "invalid"
    if run.recording.is_interrupted:  # what was under way counts as unanswered, and would fail the rate
        named = _INTERRUPTED
    p99_s = float(np.percentile(latencies, 99, method="inverted_cdf")) if latencies else 0.0
    return Step(
        rate_hz=rate_hz,
        requests=len(latencies),
        over=over,
        p99_s=p99_s,
        verdict="not proven" if named == "open" else named,
        faults=faults,
    )


def _run(scenario: Scenario, site: Site, options: Options) -> Run:
    target = gateway.find_target(site.address, scenario.model, scenario.protocol)
    rows = find_inputs(target, None, options.inputs, scenario.seed)
    mix = scenario.make_mix(None)
    schedule = make_schedule(scenario, scenario.arrivals.rate(None), len(rows.rows))
    return run_job(Job(target, rows.rows, mix.classes, schedule, scenario.timeout_s, site.generator_core))


def is_wrong_question(status: NDArray[np.uint8]) -> bool:
    """Tell whether what is asked for is wrong, by how the requests of a run ended.

    All of them ask for the same, so one that was called invalid speaks for those that a busy server refused unread, or
    never answered; else the search would go on to ever lower and longer rates, and fail them all.
    """
    return bool((status == Status.INVALID).any() and not (status == Status.OK).any())


def _check_asked_rightly(run: Run, question: Question) -> None:
    if is_wrong_question(run.recording.measured()["status"]):
        variant = f" and its variant '{question.variant}'" if question.variant else ""
        raise LoadError(f"the server calls these requests invalid; it was asked for model '{question.model}'{variant}")


def _latencies_s(run: Run) -> list[float]:
    """Return every request's latency, infinite where it was not answered."""
    columns = run.recording.measured()
    found: list[float] = np.where(columns["status"] == Status.OK, columns["latency_s"], np.inf).tolist()
    return found
