"""What a gateway has recorded of its arrivals, as a trace to tune on: moments, and the budgets that were asked for."""

from __future__ import annotations

import csv
import hashlib
import io
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.h2load import LoadError
from loadtests.tuner.request import Source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Mix = tuple[tuple[float, float], ...]

_COLUMNS: Final = {"time_s", "budget_ms"}
_MOST_BUDGETS: Final = 32
_LEAST_REQUESTS: Final = 2


def read_recording(content: bytes, name: str, default_budget_s: float) -> tuple[Source, Mix]:
    """Return the arrivals of a recording, and its budgets in seconds with their shares.

    Args:
        content: CSV with the columns ``time_s`` and ``budget_ms``, in any order of rows.
        name: What errors and the provenance call it.
        default_budget_s: The budget of requests that asked for none.

    Raises:
        LoadError: It is not such a recording, or has fewer than two requests.
    """
    try:
        rows = csv.DictReader(io.StringIO(content.decode()))
        if not set(rows.fieldnames or ()) >= _COLUMNS:
            raise LoadError(f"recording {name} has the columns {rows.fieldnames}; time_s and budget_ms are needed")
        pairs = [(float(row["time_s"]), float(row["budget_ms"] or 1e3 * default_budget_s)) for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise LoadError(f"recording {name} cannot be read: {error}") from None
    if len(pairs) < _LEAST_REQUESTS:
        raise LoadError(f"recording {name} has {len(pairs)} requests; at least {_LEAST_REQUESTS} are needed")
    times, budgets = np.array(pairs).T
    if not np.all(np.isfinite(times)) or not np.all((budgets > 0.0) & np.isfinite(budgets)):
        raise LoadError(f"recording {name} has times or budgets that are no numbers above 0")
    ordered = np.sort(times) - times.min()
    return Source(name, hashlib.sha256(content).hexdigest(), ordered), _mix(budgets / 1e3)


def read_recording_file(path: Path, default_budget_s: float) -> tuple[Source, Mix]:
    """Return what ``read_recording`` makes of a file.

    Raises:
        LoadError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"recording {path} cannot be read: {error.strerror or error}") from None
    return read_recording(content, path.name, default_budget_s)


def _mix(budgets_s: NDArray[np.float64]) -> Mix:
    """Return the budgets with their shares; of many different ones, as many quantiles."""
    values, counts = np.unique(budgets_s, return_counts=True)
    if len(values) > _MOST_BUDGETS:
        middles = (np.arange(_MOST_BUDGETS) + 0.5) / _MOST_BUDGETS
        values, counts = np.unique(np.quantile(budgets_s, middles), return_counts=True)
    shares = counts / counts.sum()
    return tuple((float(value), float(share)) for value, share in zip(values, shares, strict=True))
