"""The command ``tiergate``: one entry, with a subcommand for each job."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import service
from service.settings import ENV_PREFIX, Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.serve import Addresses

_CANNOT_START = 2
_INTERRUPTED = 130
_UNREAD = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 done, 2 refused with a message, 130 interrupted, 141 unread."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # whoever reads has enough, as in `tiergate doctor | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's end would fail on it
        return _UNREAD
    return status


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every subcommand."""
    from loadtests import cli as loadtests_cli
    from loadtests.tuner import cli as tuner_cli
    from service import demo_cli, doctor_cli, export_cli, policy_cli, top_cli
    from variants import cli as variants_cli
    from variants import search_cli
    from variants.remeasure import cli as remeasure_cli

    parser = argparse.ArgumentParser(
        prog="tiergate", description="Build the size tiers of a model, and serve them as one model within deadlines."
    )
    parser.add_argument("--version", action="version", version=f"tiergate {service.__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo_cli.add_commands(subparsers)
    variants_cli.add_commands(subparsers)
    search_cli.add_commands(subparsers)
    remeasure_cli.add_commands(subparsers)
    _add_serve(subparsers)
    loadtests_cli.add_commands(subparsers)
    tuner_cli.add_commands(subparsers)
    export_cli.add_commands(subparsers)
    policy_cli.add_commands(subparsers)
    top_cli.add_commands(subparsers)
    doctor_cli.add_commands(subparsers)
    return parser


def _add_serve(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="serve a repository of models over HTTP and gRPC",
        description=(
            "Serve a repository of models over the Open Inference Protocol. Every setting may also come from the "
            f"environment ({ENV_PREFIX}NAME) or a YAML file; flags win over the environment, that over the file."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    # Absent flags must stay absent, or their defaults would win over the environment and the file.
    default = Settings.model_fields["repository"].default
    parser.add_argument(
        "repository",
        nargs="?",
        default=argparse.SUPPRESS,
        help=f"{Settings.model_fields['repository'].description} (default: {default})",
    )
    parser.add_argument("--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="settings as YAML")
    for name, field in Settings.model_fields.items():
        if name != "repository":
            _add_flag(parser, name, field)
    parser.set_defaults(run=_serve)


def _add_flag(parser: argparse.ArgumentParser, name: str, field: Any) -> None:  # noqa: ANN401 - pydantic's field
    flag, shown = f"--{name.replace('_', '-')}", "none" if field.default in (None, ()) else field.default
    help_text = f"{field.description} (default: {shown})"
    if field.annotation is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_text)
        return
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else None
    metavar = None if choices else _metavar(name)
    parser.add_argument(flag, choices=choices, default=argparse.SUPPRESS, metavar=metavar, help=help_text)


def _metavar(name: str) -> str:
    last = name.rsplit("_", 1)[-1]
    return {
        "s": "SECONDS",
        "ms": "MS",
        "mib": "MIB",
        "mb": "MB",
        "file": "FILE",
        "policy": "FILE",
        "remotes": "FILE",
        "predictions": "FILE",
        "arrivals": "FOLDER",
        "endpoint": "URL",
        "share": "RATIO",
        "ratio": "RATIO",
        "hours": "HOURS",
        "port": "PORT",
    }.get(last, "NAMES" if name == "required_models" else "ADDRESS" if last == "host" else "N")


def _serve(parsed: argparse.Namespace) -> int:
    import uvloop

    from service.domain.errors import BackendFailed
    from service.engine.policy_reader import PolicyError
    from service.frontends.pyvoy import MissingFrontend
    from service.frontends.sockets import ListenError
    from service.serve import serve
    from service.telemetry.logs import set_up_logs

    flags = {name: value for name, value in vars(parsed).items() if name not in ("run", "config")}
    status, before = 0, set(threading.enumerate())
    try:
        settings = read_settings(flags, getattr(parsed, "config", None))
        set_up_logs(settings.log_level, settings.log_format)
        uvloop.run(serve(settings, _announce))
    except (SettingsError, PolicyError, ListenError, MissingFrontend, BackendFailed) as error:
        print(f"tiergate serve: {error}", file=sys.stderr)
        status = _CANNOT_START
    # A run that hangs, of a lane or a shadow, or a model that loads: native code that comes back to an interpreter that
    # has ended aborts the process.
    if any(thread.daemon for thread in set(threading.enumerate()) - before):
        logging.shutdown()
        with contextlib.suppress(OSError):  # whoever read has gone
            sys.stdout.flush()
        os._exit(status)
    return status


def _announce(addresses: Addresses) -> None:
    """Print the line that people and programs wait for."""
    print(f"tiergate is ready: {addresses}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
