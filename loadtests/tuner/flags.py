"""What ``tiergate tune`` can be asked: its flags, and what each may say."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from loadtests.tuner.search import DEFAULT_BUDGET


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the model and every flag."""
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
    group.add_argument("--column", metavar="NAME", help="of the times in every CSV file, or its place from 1 up")
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
        help="play base, tuned policy and runners-up to a real gateway too, twice each for so long (20)",
    )
    group.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw before and after")
    group.add_argument("--seed", type=_seed, default=0, metavar="N", help=_default("from 0 up"))
    group.add_argument("--json", action="store_true", help="print the result as JSON")


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


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 up")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value
