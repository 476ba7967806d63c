"""``tiergate load``: run a scenario, compare two runs, find the peak rate, ask for an answer sheet."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.interrupts import heard_as_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtests.document import Document
    from loadtests.scenario import Scenario
    from loadtests.trial import Options, Site

_REFUSED: Final = 2
_INVALID: Final = 3
_PROG: Final = "tiergate load"


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``load``; its own words are parsed when it runs."""
    # A scenario's name and the words ``compare``, ``peak`` and ``sheet`` share one place, which argparse's subcommands
    # cannot express; with a prefix that nobody types, every argument reaches ``run_load``.
    load = subparsers.add_parser(
        "load",
        help="send load to a gateway and report what came of it",
        add_help=False,
        prefix_chars="\0",
    )
    load.add_argument("arguments", nargs=argparse.REMAINDER)
    load.set_defaults(run=lambda parsed: run_load(parsed.arguments))


@heard_as_interrupts()
def run_load(arguments: Sequence[str]) -> int:
    """Run ``tiergate load`` with these arguments; return the exit code: 0 done, 2 refused, 3 the run is invalid."""
    from loadtests.h2load import LoadError

    words: dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]] = {
        "compare": (_compare_parser, _compare),
        "peak": (_peak_parser, _peak),
        "sheet": (_sheet_parser, _sheet),
    }
    word = arguments[0] if arguments else ""
    make_parser, run = words.get(word, (_scenario_parser, _run_scenario))
    parsed = make_parser().parse_args(arguments[1:] if word in words else arguments)
    try:
        return run(parsed)
    except LoadError as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return _REFUSED


def _scenario_parser() -> argparse.ArgumentParser:
    from loadtests.scenario import bundled

    parser = argparse.ArgumentParser(
        prog=_PROG,
        description="Send a scenario's requests on schedule, whatever the answers do, and report what came of them.",
        epilog="Other forms: 'tiergate load compare A.json B.json', 'tiergate load peak', 'tiergate load sheet FILE'; "
        "each has its own --help.",
    )
    parser.add_argument("scenario", metavar="SCENARIO", help=f"one of {', '.join(bundled())}, or a YAML file")
    _add_place(parser)
    parser.add_argument("--duration", type=_positive, metavar="SECONDS", help="in place of the scenario's")
    parser.add_argument(
        "--rate", type=_positive, metavar="HZ", help="requests per second, in place of the scenario's rate"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="in place of the scenario's")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="arrivals from a CSV file, at the scenario's rate")
    parser.add_argument("--column", metavar="NAME", help="of the times in the CSV file, or its place from 1 up")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report, one HTML file")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write all figures and every request, as JSON")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def _add_place(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", metavar="URL", help="a running gateway, such as http://127.0.0.1:8000")
    where.add_argument(
        "--repository",
        type=Path,
        default=Path("repository"),
        metavar="FOLDER",
        help="start a gateway on this repository and end it after (default: %(default)s)",
    )
    parser.add_argument("--grpc", default="", metavar="HOST:PORT", help="with --url; default: the URL's port + 1")
    parser.add_argument("--admin", default="", metavar="HOST:PORT", help="with --url; for events; default: the URL's")
    parser.add_argument("--model", metavar="MODEL", help="in place of the scenario's")
    parser.add_argument("--protocol", choices=("http-json", "http-binary", "grpc"), help="in place of the scenario's")
    parser.add_argument("--inputs", type=Path, metavar="FILE", help=".npz with arrays 'inputs' and 'labels'")
    parser.add_argument("--core", type=int, metavar="N", help="of the sending process; default: the last allowed one")
    parser.add_argument("--share-cores", action="store_true", help="let the started gateway use that core too")


def _run_scenario(parsed: argparse.Namespace) -> int:
    from loadtests.outputs import check_output
    from loadtests.trial import run_trial

    scenario = _scenario(parsed)
    for path in (parsed.save, parsed.report):
        check_output(path)
    with _site(parsed, scenario) as site, _progress(parsed, scenario) as on_progress:
        document = run_trial(scenario, site, _options(parsed), on_progress)
    _publish(document, parsed)
    return 0 if document.summary.is_valid else _INVALID


def _scenario(parsed: argparse.Namespace) -> Scenario:
    from pydantic import ValidationError

    from loadtests.h2load import LoadError
    from loadtests.scenario import Scenario, Trace, explain, read_scenario

    scenario = read_scenario(parsed.scenario)
    said: dict[str, Any] = {
        "duration_s": parsed.duration,
        "seed": parsed.seed,
        "model": parsed.model,
        "protocol": parsed.protocol,
    }
    if parsed.trace is not None or parsed.column is not None:
        found = scenario.arrivals
        rate = {"rate_hz": found.rate_hz, "load_ratio": found.load_ratio}
        own = found.model_dump() if isinstance(found, Trace) else {"kind": "trace", **rate}
        of_trace = {"file": parsed.trace, "column": parsed.column}
        said["arrivals"] = {**own, **{name: value for name, value in of_trace.items() if value is not None}}
    changes = {name: value for name, value in said.items() if value is not None}
    try:
        return Scenario.model_validate({**scenario.model_dump(), **changes})
    except ValidationError as error:
        raise LoadError(f"scenario '{parsed.scenario}' cannot be used as asked: {explain(error)}") from None


def _options(parsed: argparse.Namespace) -> Options:
    from loadtests.trial import Options

    return Options(rate_hz=getattr(parsed, "rate", None), inputs=parsed.inputs)


@contextlib.contextmanager
def _site(parsed: argparse.Namespace, scenario: Scenario) -> Iterator[Site]:
    from dataclasses import replace

    from loadtests.gateway import read_address, read_host_port, split_cores
    from loadtests.trial import Site, own_gateway

    if parsed.url is None:
        with own_gateway(parsed.repository, scenario, parsed.core, share_cores=parsed.share_cores) as site:
            yield site
        return
    address = read_address(parsed.url, read_host_port(parsed.grpc, "--grpc") if parsed.grpc else "")
    admin = read_host_port(parsed.admin, "--admin") if parsed.admin else address.admin
    yield Site(replace(address, admin=admin), None, split_cores(parsed.core)[0])


@contextlib.contextmanager
def _progress(parsed: argparse.Namespace, scenario: Scenario) -> Iterator[Callable[[float], None] | None]:
    if parsed.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(scenario.name, total=scenario.warmup_s + scenario.duration_s)
        yield lambda passed_s: progress.update(task, completed=passed_s)


def _publish(document: Document, parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from loadtests.outputs import write_whole
    from loadtests.page import render_page
    from loadtests.terminal import show

    # First what cannot fail: a full disk must not take the figures of a long run with it.
    if parsed.json:
        print(document.model_dump_json(exclude={"requests"}, indent=1), flush=True)
    else:
        show(document, Console(highlight=False))
    if parsed.save is not None:
        write_whole(parsed.save, document.model_dump_json())
    if parsed.report is not None:
        write_whole(parsed.report, render_page(document))


def _compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{_PROG} compare", description="Compare two saved runs, B against A.")
    parser.add_argument("first", type=Path, metavar="A.json")
    parser.add_argument("second", type=Path, metavar="B.json")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    return parser


def _compare(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from loadtests.compare import compare, draw
    from loadtests.trial import read_document

    comparison = compare(read_document(parsed.first), read_document(parsed.second))
    if parsed.json:
        print(comparison.model_dump_json(indent=1))
    else:
        draw(comparison, Console(highlight=False))
    return 0


def _peak_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_PROG} peak",
        description="Find the highest rate at which the p99 of latency stays within a bound: double, then bisect.",
    )
    _add_place(parser)
    parser.add_argument("--p99", type=_positive, default=50.0, metavar="MS", help="the bound (default: %(default)s)")
    parser.add_argument("--budget", type=_positive, metavar="MS", help="of every request (default: the bound)")
    parser.add_argument("--variant", default="", help="pin one variant")
    parser.add_argument("--start", type=_positive, default=50.0, metavar="HZ", help="first rate (default: %(default)s)")
    parser.add_argument("--precision", type=_positive, default=0.05, metavar="RATIO", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the steps as JSON")
    return parser


def _peak(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from loadtests.peak import Question, draw, find_peak, scenario_of

    question = Question(
        bound_s=parsed.p99 / 1e3,
        budget_s=(parsed.budget or parsed.p99) / 1e3,
        model=parsed.model or "digits",
        protocol=parsed.protocol or "http-binary",
        variant=parsed.variant,
        start_hz=parsed.start,
        precision_ratio=parsed.precision,
    )
    console = Console(highlight=False, stderr=parsed.json)
    with _site(parsed, scenario_of(question, 1.0, 1.0)) as site:
        peak = find_peak(question, site, _options(parsed), lambda step: console.print(str(step)))
    if parsed.json:
        print(peak.model_dump_json(indent=1))
    else:
        draw(peak, console)
    return 0 if peak.rate_hz else _INVALID


def _sheet_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_PROG} sheet",
        description="Ask every variant for every labelled row, and save which are right and by what margin.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.npz")
    _add_place(parser)
    return parser


def _sheet(parsed: argparse.Namespace) -> int:
    from loadtests.answer_sheet import ask_all, save_sheet
    from loadtests.peak import Question, scenario_of

    scenario = scenario_of(Question(model=parsed.model or "digits"), 1.0, 1.0)
    with _site(parsed, scenario) as site:
        sheet = ask_all(site, scenario.model, parsed.inputs)
    save_sheet(sheet, parsed.file)
    for name, correct in zip(sheet.variants, sheet.rows_correct, strict=True):
        print(f"{name}: {correct.mean():.2%} of {len(correct)} rows right")
    return 0


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value
