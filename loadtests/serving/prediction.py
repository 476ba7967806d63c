"""Predicted against actual latency, as the answers tell both.

The prediction is made when a run is chosen; the wait up to then is known, so it is taken off both sides. The claimed
99th percentile is held against the same moment. With n answers of which k exceed the claim, coverage is 1 - k / n; of
fewer than 459 answers it says little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.intervals import share_interval
from loadtests.serving.contenders import OURS_NAME
from loadtests.serving.gateways import gateways, play_on
from loadtests.serving.real import real_policies, slice_of
from loadtests.serving.setting import full_rate_hz

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from loadtests.serving.setting import Setting

_TENTHS: Final = 10
_LEAST_ANSWERS: Final = 30
_SKIPPED: Final = 0.4


def run_reliability(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Play every trace at every real load on our gateway, from a later part of the trace; return the figures."""
    rate_hz = full_rate_hz(setting.fleet(lanes=1))
    parts: list[dict[str, NDArray[Any]]] = []
    rows = []
    with gateways(setting, {OURS_NAME: real_policies(setting)[OURS_NAME]}) as sites:
        for trace, every_s in setting.arrivals().items():
            later_s = every_s[int(_SKIPPED * len(every_s)) :]
            for load in setting.real_loads:
                played = play_on(sites[OURS_NAME], setting, slice_of(setting, later_s - later_s[0], load * rate_hz))
                columns, names = played.judged.columns, np.array([*played.run.recording.variants, ""])
                kept = {name: columns[name][played.judged.is_answered] for name in _COLUMNS}
                kept["variant"] = names[columns["variant"][played.judged.is_answered]]
                parts.append(kept)
                rows.append({"trace": trace, "load": load, **errors(kept), "is_valid": played.run.lag.is_valid})
                say(f"reliability: {trace} at load {load:g}")
    together = {name: np.concatenate([part[name] for part in parts]) for name in (*_COLUMNS, "variant")}
    variants = [str(name) for name in np.unique(together["variant"]) if name]
    return {
        "rows": rows,
        "all": errors(together),
        "variants": {name: of_variant(together, name) for name in variants},
    }


_COLUMNS: Final = ("predicted_s", "predicted_p99_s", "queue_s", "total_s")


def errors(columns: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the error of predictions, and how often the claimed 99th percentile held; ``None`` where not claimed."""
    predicted_s, actual_s = columns["predicted_s"] - columns["queue_s"], columns["total_s"] - columns["queue_s"]
    known = (predicted_s > 0) & (actual_s > 0)
    if not known.any():
        return {"answers": 0, "error_p50": None, "error_p95": None, "coverage": None, "coverage_interval": None}
    error = np.abs(predicted_s - actual_s)[known] / actual_s[known]
    claimed = ~np.isnan(columns["predicted_p99_s"]) & ~np.isnan(columns["total_s"])
    kept = int((columns["total_s"] <= columns["predicted_p99_s"])[claimed].sum())
    count = int(claimed.sum())
    return {
        "answers": int(known.sum()),
        "error_p50": float(np.percentile(error, 50)),
        "error_p95": float(np.percentile(error, 95)),
        "coverage": kept / count if count else None,
        "coverage_interval": list(share_interval(kept, count)) if count else None,
    }


def of_variant(columns: dict[str, NDArray[Any]], name: str) -> dict[str, Any]:
    """Return one variant's errors and, in tenths by prediction, mean predicted and p50, p95 and p99 of actual times."""
    mine = columns["variant"] == name
    own = {key: values[mine] for key, values in columns.items()}
    predicted_s, actual_s = own["predicted_s"] - own["queue_s"], own["total_s"] - own["queue_s"]
    known = (predicted_s > 0) & (actual_s > 0)
    return {**errors(own), "tenths": tenths(predicted_s[known], actual_s[known])}


def tenths(predicted_s: NDArray[np.float64], actual_s: NDArray[np.float64]) -> Sequence[dict[str, float]]:
    """Return points of a reliability plot; none where there are fewer than 30 answers."""
    if len(predicted_s) < _LEAST_ANSWERS:
        return []
    points = []
    for part in np.array_split(np.argsort(predicted_s, kind="stable"), _TENTHS):
        p50, p95, p99 = np.percentile(actual_s[part], (50, 95, 99)).tolist()
        points.append({"predicted_s": float(predicted_s[part].mean()), "p50_s": p50, "p95_s": p95, "p99_s": p99})
    return points
