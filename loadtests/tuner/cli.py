"""``tiergate tune``: find the thresholds that suit a model, its traffic and its promise."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtests.tuner.flags import add_flags
from service.interrupts import heard_as_interrupts

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from loadtests.tuner.confirm import Confirmed
    from loadtests.tuner.question import Question
    from loadtests.tuner.request import Request
    from loadtests.tuner.search import Progress
    from loadtests.tuner.tune import Tuned

_REFUSED: Final = 2
_BROKEN: Final = 3
_INTERRUPTED: Final = 130
_PROG: Final = "tiergate tune"


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``tune``."""
    parser = subparsers.add_parser(
        "tune",
        help="find a model's best policy for its traffic, and prove it on arrivals unseen",
        description=(
            "Search the policy file's thresholds in the simulator for the highest effective accuracy under your "
            "limits, judge the best on arrivals that the search has not seen, and write it as a policy file. "
            "Exit status: 0 a policy was written (the base thresholds where no gain is proven), 2 nothing could be "
            "tuned, 3 no policy keeps the limits."
        ),
    )
    add_flags(parser)
    parser.set_defaults(run=_run)


@heard_as_interrupts()
def _run(parsed: argparse.Namespace) -> int:
    from loadtests.h2load import LoadError
    from service.policy_client import GatewayRefused

    try:
        return _tune(parsed)
    except (LoadError, GatewayRefused, ValueError) as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return _REFUSED


def _tune(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from loadtests.outputs import write_whole
    from loadtests.tuner import plot, terminal
    from loadtests.tuner.request import prepare, shape_in_words
    from loadtests.tuner.tune import Effort, policy_text, tune
    from service.policy_client import Site, push_policy

    _check_ends(parsed)
    request = _request(parsed)
    prepared = prepare(request)
    question = prepared.question
    notes = Console(stderr=True, highlight=False)
    for name, part in [("tuned", part) for part in question.tuning] + [("judged", part) for part in question.judging]:
        notes.print(f"{name} on {shape_in_words(part)}", style="dim")
    with _progress(quiet=parsed.json) as on_progress:
        tuned = tune(question, Effort(parsed.runs, parsed.processes, parsed.state), on_progress)
    if tuned.state_fault:
        notes.print(f"state {parsed.state} is not kept any more: {tuned.state_fault}", markup=False)
    console = Console(highlight=False, quiet=parsed.json)
    terminal.show(tuned, question, console)
    seen = _confirm(parsed, request, question, tuned)
    tuned = seen.tuned
    if parsed.json:
        print(json.dumps(terminal.document_of(tuned, question, seen.found), indent=1))
    if parsed.plot:
        write_whole(parsed.plot, plot.draw(question, tuned.base, tuned.candidate))
    broken = _broken(tuned, seen.shortfall)
    if broken:
        print(f"{_PROG}: nothing is written: {broken}", file=sys.stderr)
        return _BROKEN
    text = policy_text(tuned, prepared, request)
    if parsed.output:
        write_whole(parsed.output, text)
        notes.print(f"{parsed.output} is written; put it in force with: tiergate policy apply {parsed.output}")
    if seen.is_cut_short:
        notes.print("the confirmation was interrupted: nothing is put in force")
        return _INTERRUPTED
    if parsed.apply:
        done = push_policy(Site.of(parsed.apply, parsed.token_file), text.encode())
        notes.print(f"{parsed.apply} goes by it now; digest {done['digest']}")
    return 0


def _broken(tuned: Tuned, shortfall: float) -> str:
    """Return why no policy may be used; empty where one may."""
    if tuned.policy is None:
        return "no policy keeps the limits"
    return f"at the gateway attainment is {100 * shortfall:.2f} points below the floor" if shortfall else ""


def _check_ends(parsed: argparse.Namespace) -> None:
    """Look whether what comes of it can be written and put in force, before minutes are spent on it.

    Raises:
        LoadError: A file cannot be written.
        GatewayRefused: The gateway cannot be reached, or does not take the token.
    """
    from loadtests.outputs import check_output
    from service.policy_client import Site, fetch_policy

    for path in (parsed.output, parsed.plot, parsed.state):
        check_output(path)
    if parsed.apply:
        fetch_policy(Site.of(parsed.apply, parsed.token_file))


def _request(parsed: argparse.Namespace) -> Request:
    from loadtests.tuner.question import Limits, read_mix, read_slo
    from loadtests.tuner.request import Pace, Request
    from loadtests.tuner.traffic import read_traffic

    slo = read_slo(parsed.slo)
    traffic = read_traffic(parsed)
    return Request(
        model=parsed.model,
        repository=parsed.repository,
        mix=read_mix(parsed.budget_ms) if parsed.budget_ms else None,
        traces=traffic.traces,
        judge_traces=tuple(parsed.judge),
        judged=parsed.judge_share,
        pace=Pace(parsed.rate, parsed.load),
        limits=Limits(
            attainment=slo.share if parsed.min_attainment is None else parsed.min_attainment,
            accuracy=parsed.min_accuracy,
            busy_ratio=parsed.max_cpu,
            memory_bytes=float("inf") if parsed.max_memory_mb is None else parsed.max_memory_mb * 2**20,
            objective=parsed.objective,
        ),
        budget_s=slo.budget_s,
        lanes=parsed.lanes,
        answers=parsed.answers,
        base=traffic.base,
        seed=parsed.seed,
        column=parsed.column,
    )


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("searching", total=1.0)

        def tell(progress: Progress) -> None:
            best = progress.best
            kept = "" if best.kept >= 0.0 else f", limits missed by {100 * -best.kept:.2f} points"
            words = f"best of {progress.tried}: {best.objective:.5f}{kept}"
            bar.update(task, completed=min(1.0, progress.spent / progress.budget), description=words)

        yield tell


@dataclass(frozen=True, slots=True)
class _Seen:
    """The tune after a gateway saw it, each policy's figures there, what is short, and whether Ctrl-C came."""

    tuned: Tuned
    found: tuple[Confirmed, ...] = ()
    shortfall: float = 0.0
    is_cut_short: bool = False


def _confirm(parsed: argparse.Namespace, request: Request, question: Question, tuned: Tuned) -> _Seen:
    """Play the best few to a gateway, where that was asked for."""
    from rich.console import Console

    from loadtests.tuner import terminal
    from loadtests.tuner.confirm import best_confirmed, confirm, policies_of

    if not parsed.confirm:
        return _Seen(tuned)
    notes = Console(stderr=True, highlight=False)
    try:
        found = confirm(
            request, question, policies_of(tuned), parsed.confirm, lambda words: notes.print(words, style="dim")
        )
        best, shortfall = best_confirmed(tuned, question, found)
    except KeyboardInterrupt:
        return _Seen(tuned, is_cut_short=True)
    console = Console(highlight=False, quiet=parsed.json)
    terminal.show_confirmed(tuple(found.values()), console)
    if best is not tuned:
        notes.print("the tuned policy falls short at the gateway; the best that does not takes its place:")
        terminal.show(best, question, console)
    return _Seen(best, tuple(found.values()), shortfall)
