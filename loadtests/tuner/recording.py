"""What a gateway has recorded of its arrivals, as a trace to tune on: moments, and what each request asked for."""

from __future__ import annotations

import csv
import hashlib
import io
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.h2load import LoadError
from loadtests.tuner.asks import Asks
from loadtests.tuner.request import Source
from service.domain.inference import Criticality

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_COLUMNS: Final = {"time_s", "budget_ms"}
_LEAST_REQUESTS: Final = 2
_CRITICALITIES: Final = {item.name.lower(): int(item) for item in Criticality}


def read_recording(content: bytes, name: str) -> Source:
    """Return the arrivals of a recording.

    Args:
        content: CSV with the columns ``time_s`` and ``budget_ms``, in any order of rows; ``timeout_ms``,
            ``criticality`` and ``hardware`` where they were recorded.
        name: What errors and the provenance call it.

    Raises:
        LoadError: It is not such a recording, or has fewer than two requests.
    """
    try:
        rows = csv.DictReader(io.StringIO(content.decode()))
        if not set(rows.fieldnames or ()) >= _COLUMNS:
            raise LoadError(f"recording {name} has the columns {rows.fieldnames}; time_s and budget_ms are needed")
        found = [_row(row) for row in rows]
    except KeyError as error:
        raise LoadError(f"recording {name}: criticality is {error}; known are {', '.join(_CRITICALITIES)}") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise LoadError(f"recording {name} cannot be read: {error}") from None
    if len(found) < _LEAST_REQUESTS:
        raise LoadError(f"recording {name} has {len(found)} requests; at least {_LEAST_REQUESTS} are needed")
    times, budgets, timeouts, criticalities, hardware = map(np.array, zip(*found, strict=True))
    if not np.all(np.isfinite(times)) or not (_are_times(budgets) and _are_times(timeouts)):
        raise LoadError(f"recording {name} has times, budgets or timeouts that are no numbers above 0")
    asks = Asks(budgets / 1e3, timeouts / 1e3, criticalities.astype(np.int8), hardware.astype(np.str_))
    if not times.max() > times.min():
        raise LoadError(f"recording {name} has {len(found)} requests, all at one moment")
    order = np.argsort(times, kind="stable")
    return Source(name, hashlib.sha256(content).hexdigest(), times[order] - times.min(), asks.part(order))


def read_recording_file(path: Path) -> Source:
    """Return what ``read_recording`` makes of a file.

    Raises:
        LoadError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"recording {path} cannot be read: {error.strerror or error}") from None
    return read_recording(content, path.name)


def _row(row: dict[str, str | None]) -> tuple[float, float, float, int, str]:
    """Return time, budget, timeout (NaN where not said), criticality and hardware class."""
    said = {name: text or "" for name, text in row.items()}
    budget_ms, timeout_ms = (float(said.get(name) or "nan") for name in ("budget_ms", "timeout_ms"))
    criticality = _CRITICALITIES[said.get("criticality") or "normal"]
    return float(said["time_s"]), budget_ms, timeout_ms, criticality, said.get("hardware", "")


def _are_times(values: NDArray[np.float64]) -> bool:
    """Tell whether all that is said is finite and above 0; a text that says ``nan`` counts as not said."""
    return bool(np.all(np.isnan(values) | ((values > 0.0) & np.isfinite(values))))
