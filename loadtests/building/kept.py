"""The results file: by part and model, the newest that was found of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from loadtests.building.subjects import BenchError
from variants.publication import write_whole

if TYPE_CHECKING:
    from pathlib import Path


def read_results(path: Path) -> dict[str, Any]:
    """Return the parts; none where there is no file.

    Raises:
        BenchError: It holds something else.
    """
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["parts"])
    except (ValueError, LookupError, TypeError):
        raise BenchError(f"{path} holds no results of this benchmark; move it away") from None


def write_results(path: Path, parts: dict[str, Any]) -> None:
    """Write the parts, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"parts": parts}, indent=1).encode() + b"\n")
