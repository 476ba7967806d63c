"""The results file: one section a part, each with what its figures must come with; parts are replaced one by one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from loadtests.h2load import LoadError

if TYPE_CHECKING:
    from pathlib import Path

PARTS: Final = ("sheet", "calibrate", "simulated", "hindsight", "real", "cascades", "reliability", "idle")
"""In this order: each may use what those before it left."""
_DIGITS: Final = 7


def read_results(path: Path) -> dict[str, Any]:
    """Return the file's sections by part; none where there is no file.

    Raises:
        LoadError: It holds something else.
    """
    if not path.exists():
        return {}
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
    except (ValueError, LookupError, TypeError):
        raise LoadError(f"{path} holds no results of this benchmark; move it away") from None
    return dict(parts)


def write_results(path: Path, parts: dict[str, Any]) -> None:
    """Write the sections, numbers to seven significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = {name: parts[name] for name in PARTS if name in parts}
    text = json.dumps({"parts": shortened(ordered)}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def shortened(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return a value with its numbers cut to seven significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {str(key): shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(item) for item in value]
    return value
