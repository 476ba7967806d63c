"""Results of the serving benchmark as its parts would have left them."""

from __future__ import annotations

from typing import Any

NAMES = (
    "always-full-plain", "always-full", "always-smallest", "best-fixed", "random", "static-threshold", "infaas",
    "proteus", "slackfit", "tiergate", "tiergate, cost",
)  # fmt: skip
RUN: dict[str, Any] = {
    "command": "python -m loadtests.serving_bench",
    "commit": "abc1234",
    "date": "2026-01-02",
    "machine": {"cpu": "a processor", "cores": 2},
    "key": "k",
    "took_s": 12.0,
}


def make_parts() -> dict[str, Any]:
    """Return all parts, made of round numbers."""
    figures = {"attainment": 0.95, "effective_accuracy": 0.85, "expected_accuracy": 0.85, "cpu_s_per_good_answer": 0.02}
    ours = {"attainment": 1.0, "effective_accuracy": 0.91, "expected_accuracy": 0.91, "cpu_s_per_good_answer": 0.01}
    cells = [
        {
            "trace": "a trace",
            "load": load,
            "policies": dict.fromkeys(NAMES, figures) | {"tiergate": ours},
            "oracle": {"expected_accuracy": 0.92, "effective_accuracy": 0.95, "attainment": 1.0},
            "least_cpu_s": 0.005,
        }
        for load in (0.5, 1.0, 3.0)
    ]
    overload = {"peak_hz": 100.0, "peak_offered_hz": 110.0, "goodput_hz": {"3": 99.0}, "recovery_s": 0.5}
    simulated = {
        "budget_s": 0.1, "lanes": 2, "requests": 4000, "full_hz": 60.0, "full_accuracy": 0.92, "has_answers": True,
        "is_calibrated": False, "cells": cells, "overload": {"tiergate": overload},
        "served": [{"trace": "a trace", "loads": {"always-full": 0.3, "tiergate": 1.2}, "oracle": 1.5}],
    }  # fmt: skip
    real = {
        "attainment": 0.99, "mean_accuracy": 0.9, "effective_accuracy": 0.89, "latency_p50_s": 0.01,
        "latency_p99_s": None, "is_valid": False, "faults": ["schedule lag"],
    }  # fmt: skip
    rows = [
        {"trace": "a trace", "load": 1.0, "policy": "tiergate", "real": real, "simulated": {"attainment": 0.98}},
    ]
    cascades = [
        {**real, "trace": "a trace", "load": 0.5, "policy": policy, "cpu_s_per_good_answer": cpu_s}
        for policy, cpu_s in (("tiergate", 0.002), ("tiergate, no cascades", 0.004))
    ]
    tenths = [{"predicted_s": 0.01 * place, "p50_s": 0.01 * place, "p95_s": 0.02, "p99_s": 0.03} for place in (1, 2)]
    found = {"answers": 900, "error_p50": 0.05, "error_p95": 0.1, "coverage": 0.99, "coverage_interval": [0.98, 1.0]}
    variants = {"full": {**found, "tenths": tenths}, "rare": {**found, "tenths": []}}
    return {
        "simulated": {**RUN, **simulated},
        "hindsight": {**RUN, **simulated},
        "real": {
            **RUN,
            "budget_s": 0.1,
            "full_hz": 30.0,
            "rows": rows,
            "overload": overload,
            "overload_heavier": overload,
        },
        "cascades": {**RUN, "budget_s": 0.1, "full_hz": 30.0, "rows": cascades},
        "reliability": {**RUN, "rows": [], "all": found, "variants": variants},
        "idle": {**RUN, "p50_s": {"tiergate": 6e-4, "raw frontend": 5e-4, "bare": 1e-5}},
    }
