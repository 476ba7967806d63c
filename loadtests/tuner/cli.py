"""``tiergate tune``: find the thresholds that suit a model, its traffic and its promise."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtests.tuner.confirm import Confirmed
    from loadtests.tuner.question import Question
    from loadtests.tuner.request import Request
    from loadtests.tuner.search import Progress
    from loadtests.tuner.tune import Tuned

_REFUSED: Final = 2
_BROKEN: Final = 3
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
    parser.add_argument("model", metavar="MODEL", help="a model of the repository")
    parser.add_argument(
        "--repository", type=Path, default=Path("repository"), metavar="FOLDER", help=_default("built models")
    )
    parser.add_argument("--slo", required=True, metavar="P=TIME", help="the promise, such as p99=20ms")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the policy there; without it nothing is written"
    )
    parser.add_argument(
        "--base", type=Path, metavar="FILE", help="the policy file to improve upon; default: the built-in thresholds"
    )
    parser.add_argument("--apply", metavar="URL", help="put the policy in force at a gateway's admin listener")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the admin token, for URLs")
    _add_traffic(parser)
    _add_limits(parser)
    _add_effort(parser)
    parser.set_defaults(run=_run)


def _default(text: str) -> str:
    return f"{text} (default: %(default)s)"


def _add_traffic(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("traffic")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--trace",
        action="append",
        metavar="FILE",
        help="CSV of arrivals, or stand-in:code, stand-in:conv; may be repeated",
    )
    source.add_argument(
        "--arrivals",
        type=Path,
        metavar="FILE",
        help="what a gateway recorded (tiergate serve --record-arrivals)",
    )
    source.add_argument(
        "--from",
        dest="gateway",
        metavar="URL",
        help="a gateway's admin listener: tune on what it recorded, from the policy that it goes by",
    )
    group.add_argument(
        "--judge",
        action="append",
        default=[],
        metavar="FILE",
        help="a trace that only judges; default: the last part of each trace",
    )
    group.add_argument(
        "--judge-share", type=_share, default=0.4, metavar="RATIO", help=_default("how much of a trace's time judges")
    )
    pace = group.add_mutually_exclusive_group()
    pace.add_argument(
        "--rate", type=_positive, metavar="HZ", help="play traces at this mean rate; default: as recorded"
    )
    pace.add_argument(
        "--load",
        type=_positive,
        metavar="RATIO",
        help="the rate as a share of what always-full would need of all lanes",
    )
    group.add_argument(
        "--budget-ms",
        metavar="MIX",
        help="budgets that requests name, as 20 or 20:7,50:3; default: as recorded; those that name none have --slo's",
    )
    group.add_argument(
        "--answers", type=Path, metavar="FILE", help="answer sheet of `tiergate load sheet`; needed to judge cascades"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits and objective")
    group.add_argument(
        "--objective",
        choices=("accuracy", "cost"),
        default="accuracy",
        help="most accuracy, or least CPU time (default: %(default)s)",
    )
    group.add_argument(
        "--min-attainment", type=_ratio, metavar="RATIO", help="floor of the share in time; default: that of --slo"
    )
    group.add_argument(
        "--min-accuracy",
        type=_ratio,
        default=0.0,
        metavar="RATIO",
        help=_default("floor of the mean accuracy of answers"),
    )
    group.add_argument(
        "--max-cpu",
        type=_share,
        default=1.0,
        metavar="RATIO",
        help=_default("ceiling of the share of the lanes' time that is computed"),
    )
    group.add_argument("--max-memory-mb", type=_positive, metavar="MIB", help="ceiling of the loaded variants' memory")


def _add_effort(parser: argparse.ArgumentParser) -> None:
    from loadtests.tuner.search import DEFAULT_BUDGET

    group = parser.add_argument_group("effort")
    group.add_argument("--lanes", type=_count, default=_cores(), metavar="N", help=_default("lanes of the gateway"))
    group.add_argument(
        "--runs",
        type=_positive,
        default=DEFAULT_BUDGET,
        metavar="N",
        help=_default("simulations of the whole tuning part that a search may cost"),
    )
    group.add_argument(
        "--processes", type=_count, default=_cores(), metavar="N", help=_default("simulations at a time")
    )
    group.add_argument("--state", type=Path, metavar="FILE", help="keep figures there, and go on from them")
    group.add_argument(
        "--confirm",
        type=_positive,
        nargs="?",
        const=20.0,
        metavar="SECONDS",
        help="play base and tuned policy to a real gateway too, twice each for so long (20)",
    )
    group.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw before and after")
    group.add_argument("--seed", type=int, default=0, metavar="N")
    group.add_argument("--json", action="store_true", help="print the result as JSON")


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

    from loadtests.tuner import plot, terminal
    from loadtests.tuner.request import prepare, shape_in_words
    from loadtests.tuner.tune import Effort, policy_text, tune
    from loadtests.tuner.writing import write_whole
    from service.policy_client import Site, push_policy

    request = _request(parsed)
    prepared = prepare(request)
    question = prepared.question
    notes = Console(stderr=True, highlight=False)
    for name, parts in (("tuned on", question.tuning), ("judged on", question.judging)):
        for part in parts:
            notes.print(f"{name} {shape_in_words(part)}", style="dim")
    with _progress(quiet=parsed.json) as on_progress:
        tuned = tune(question, Effort(parsed.runs, parsed.processes, parsed.state), on_progress)
    confirmed = _confirm(parsed, request, question, tuned) if parsed.confirm else []
    if parsed.json:
        print(json.dumps(terminal.document_of(tuned, question, confirmed), indent=1))
    else:
        console = Console(highlight=False)
        terminal.show(tuned, question, console)
        if confirmed:
            terminal.show_confirmed(confirmed, console)
    if parsed.plot:
        write_whole(parsed.plot, plot.draw(question, tuned.base, tuned.candidate))
    short = max((item.shortfall(question.limits.attainment) for item in confirmed if item.name == "tuned"), default=0.0)
    if tuned.policy is None or (short and tuned.policy is tuned.candidate):
        why = (
            f"at the gateway attainment is {100 * short:.2f} points below the floor"
            if short
            else "no policy keeps the limits"
        )
        print(f"{_PROG}: nothing is written: {why}", file=sys.stderr)
        return _BROKEN
    text = policy_text(tuned, prepared, request)
    if parsed.output:
        write_whole(parsed.output, text)
        notes.print(f"{parsed.output} is written; put it in force with: tiergate policy apply {parsed.output}")
    if parsed.apply:
        done = push_policy(Site.of(parsed.apply, parsed.token_file), text.encode())
        notes.print(f"{parsed.apply} goes by it now; digest {done['digest']}")
    return 0


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


def _confirm(parsed: argparse.Namespace, request: Request, question: Question, tuned: Tuned) -> list[Confirmed]:
    from rich.console import Console

    from loadtests.tuner.confirm import confirm

    notes = Console(stderr=True, highlight=False)
    policies = {"base": tuned.base, "tuned": tuned.candidate}
    found = confirm(request, question, policies, parsed.confirm, lambda words: notes.print(words, style="dim"))
    return list(found.values())


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _ratio(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return value


def _share(text: str) -> float:
    value = _ratio(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text} is not a share above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value
