"""``tiergate doctor``: what this host is, and whether tiergate will do well here."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse

    from service.findings import Finding

_FAILS: Final = 1
_REFUSED: Final = 2
_SETTINGS: Final = ("policy", "remotes")


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``doctor``."""
    parser = subparsers.add_parser(
        "doctor",
        help="say whether tiergate will do well on this machine, and what to do where not",
        description=(
            "Look at the processor, cores and their limits, memory, ports, files, optional parts, models and policy "
            "as `tiergate serve` with the same settings would meet them; nothing is served or changed. Exit status: 0 "
            "where nothing fails (warnings do not), 1 where something does, 2 where the settings are wrong."
        ),
    )
    parser.add_argument("repository", nargs="?", type=Path, metavar="REPOSITORY", help="folder of built models")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings of `tiergate serve` as YAML")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="policy file")
    parser.add_argument("--remotes", type=Path, metavar="FILE", help="file of the variants that run on other servers")
    parser.add_argument("--measure", action="store_true", help="load and run every variant, and compare its speed")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print every finding; return 1 where something fails, 2 where the settings are wrong."""
    from service.doctor import Patient, examine
    from service.engine.host import examine_host
    from service.settings import SettingsError, read_settings

    given = {name: getattr(parsed, name) for name in ("repository", *_SETTINGS)}
    try:
        settings = read_settings({name: value for name, value in given.items() if value is not None}, parsed.config)
    except SettingsError as error:
        print(f"tiergate doctor: {error}", file=sys.stderr)
        return _REFUSED
    findings = []
    for finding in examine(Patient(examine_host(), settings, time.time(), parsed.measure)):
        findings.append(finding)
        if not parsed.json:
            print(_line(finding), flush=True)
    worst = max(findings, key=lambda item: ("ok", "warn", "fail").index(item.level)).level
    counts = {level: sum(item.level == level for item in findings) for level in ("ok", "warn", "fail")}
    if parsed.json:
        print(
            json.dumps({"level": worst, "counts": counts, "findings": [_object(item) for item in findings]}, indent=2)
        )
    else:
        print(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} to repair")
    return _FAILS if worst == "fail" else 0


def _line(finding: Finding) -> str:
    text = f"{finding.level:5}{finding.check}: {finding.found}"
    return f"{text}\n     -> {finding.advice}" if finding.advice else text


def _object(finding: Finding) -> dict[str, Any]:
    return {"check": finding.check, "level": finding.level, "found": finding.found, "advice": finding.advice}
