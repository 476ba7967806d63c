"""``python -m loadtests.rollout``: replace gateways under load, and count what fails."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from loadtests.h2load import LoadError
from loadtests.record import describe_run
from loadtests.rollout.pods import Lifecycle
from loadtests.rollout.rehearsal import LIFECYCLE, Setting, rehearse
from service.interrupts import heard_as_interrupts

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM = "python -m loadtests.rollout"
_FAILED = 1
_REFUSED = 2
_INTERRUPTED = 130


@heard_as_interrupts()
def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse and print; return 0 where nothing failed, 1 where something did."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        found = asyncio.run(rehearse(_setting(options), lambda text: console.print(text, markup=False)))
    except (LoadError, OSError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return _REFUSED
    except KeyboardInterrupt:
        console.print("interrupted; every gateway is ended")
        return _INTERRUPTED
    print(json.dumps(found, indent=1))
    if options.results:
        facts = describe_run(_PROGRAM, sys.argv[1:] if arguments is None else arguments)
        options.results.write_text(json.dumps(facts | found, indent=1) + "\n", encoding="utf-8")
    return _FAILED if any(found["failed"].values()) or found["bad_exits"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("repository"))
    parser.add_argument("--model", default="digits")
    parser.add_argument(
        "--work", type=Path, default=Path("loadtests/results/raw/rollout"), help="for the gateways' logs"
    )
    parser.add_argument("--pods", type=_count, default=3)
    parser.add_argument("--restarts", type=_count, default=200)
    parser.add_argument("--surge", type=_count, default=1, help="pods that are replaced at a time")
    parser.add_argument("--lag-s", type=float, default=10.0, help="how late a change of the list may be seen")
    parser.add_argument("--pre-stop-s", type=float, default=LIFECYCLE.pre_stop_s)
    parser.add_argument("--grace-s", type=float, default=LIFECYCLE.drain_grace_s)
    parser.add_argument("--load", type=float, default=0.7, help="share of the peak that is sent (default: %(default)s)")
    parser.add_argument("--rate", type=float, metavar="HZ", help="send so many a second instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, metavar="FILE.json")
    return parser


def _setting(options: argparse.Namespace) -> Setting:
    return Setting(
        repository=options.repository,
        model=options.model,
        work=options.work,
        pods=options.pods,
        restarts=options.restarts,
        surge=options.surge,
        lag_s=options.lag_s,
        lifecycle=Lifecycle(options.pre_stop_s, options.grace_s, LIFECYCLE.drain_timeout_s),
        load_ratio=options.load,
        rate_hz=options.rate,
        seed=options.seed,
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value
