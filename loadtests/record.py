"""What a result names beside its figures: the command, the machine, the commit and the date."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from variants.machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Sequence


def describe_run(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the facts that a published figure must come with."""
    return {
        "command": " ".join([program, *arguments]),
        "machine": describe_machine().model_dump(mode="json"),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def commit() -> str:
    """Return the commit of the checkout, with a plus sign where files differ from it."""
    name = _git("rev-parse", "--short", "HEAD")
    return f"{name}+" if name and _git("status", "--porcelain", "--untracked-files=no") else name or "unknown"


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - git of the PATH
    return done.stdout.strip() if done.returncode == 0 else ""
