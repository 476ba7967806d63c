from __future__ import annotations

from typing import Any

import pytest

from loadtests.serving.bars import (
    accuracy,
    agreement,
    all_bars,
    attainment,
    cascades,
    constants,
    cost,
    gap_closed,
    idle,
    nearness,
    overloaded,
    predictions,
    served,
    violations,
)

OTHERS = ("always-full", "best-fixed", "slackfit", "infaas", "proteus", "static-threshold", "tiergate, cost")


def figures(on_time: float, right: float, cpu_s: float = 0.03) -> dict[str, float]:
    return {
        "attainment": on_time,
        "effective_accuracy": right,
        "expected_accuracy": right,
        "cpu_s_per_good_answer": cpu_s,
    }


def make_cell(load: float = 1.0, /, **policies: dict[str, float]) -> dict[str, Any]:
    """Ours 99.95 % on time and 91.5 % right; everyone else 90 % on time and 80 % right; the oracle 92 %."""
    everyone = dict.fromkeys(OTHERS, figures(0.9, 0.8)) | {"tiergate": figures(0.9995, 0.915)} | policies
    oracle = {"expected_accuracy": 0.92, "effective_accuracy": 0.95, "attainment": 1.0}
    return {"trace": "t", "load": load, "policies": everyone, "oracle": oracle, "least_cpu_s": 0.005}


def test_attainment_is_held_against_the_bar_of_its_load() -> None:
    half, full = attainment([make_cell(0.5), make_cell(1.0), make_cell(3.0)])
    assert (half.is_met, full.is_met) == (False, True)
    assert half.asked == ">= 99.99 %"
    assert full.oracle == "100 %"


def test_violations_count_how_many_times_fewer() -> None:
    nearly = make_cell(2.0, tiergate=figures(0.98, 0.9), slackfit=figures(0.985, 0.9))
    full, threshold, slackfit = violations([nearly, make_cell(1.0)])
    assert "5.0x" in full.measured
    assert (full.is_met, threshold.is_met, slackfit.is_met) == (False, True, False)


def test_violations_of_nobody_are_no_failure() -> None:
    clean = dict.fromkeys(("tiergate", *OTHERS), figures(1.0, 0.9))
    assert all(bar.is_met for bar in violations([{**make_cell(3.0), "policies": clean}]))


def test_nearness_says_what_any_schedule_could_have_had() -> None:
    cell = make_cell(2.0, tiergate=figures(0.96, 0.9), **{"static-threshold": figures(0.94, 0.88)})
    cell["oracle"]["attainment"] = 0.98
    distance, violations = nearness([cell])
    assert distance.measured == "2.00 points; best single variant 12.00 points"
    assert not distance.is_met
    assert (violations.measured, violations.oracle, violations.is_met) == ("1.5x", "3.0x at most", False)
    assert [bar.what for bar in nearness([make_cell(1.0)])] == ["accuracy below the oracle"]


def test_accuracy_reports_the_worst_place() -> None:
    bars = accuracy([make_cell(1.0), make_cell(3.0, slackfit=figures(0.99, 0.916))])
    above = bars[0]
    assert (above.what, above.is_met, above.where) == ("above slackfit", False, "t, load 3")
    assert above.measured == "-0.10 points"
    assert [bar.is_met for bar in bars[1:]] == [True] * 5


def test_distance_from_the_oracle_has_a_bar_of_one_point() -> None:
    near, far = make_cell(), make_cell(tiergate=figures(1.0, 0.905))
    assert [accuracy([cell])[4].is_met for cell in (near, far)] == [True, False]


def test_gap_closed_is_a_share_of_what_was_open() -> None:
    assert gap_closed(make_cell()) == pytest.approx((0.915 - 0.8) / (0.92 - 0.8))
    assert gap_closed(make_cell(**{"best-fixed": figures(1.0, 0.92)})) is None


def test_the_tuned_form_stands_for_ours_where_there_is_one() -> None:
    cell = make_cell(0.5, **{"tiergate, tuned": figures(1.0, 0.919)})
    assert attainment([cell])[0].is_met


def test_rate_served_is_a_multiple_of_always_full() -> None:
    found = {"trace": "t", "loads": {"always-full": 0.5, "tiergate": 1.4}, "oracle": 2.0}
    assert [bar.is_met for bar in served([found])] == [False]
    nobody = {"trace": "t", "loads": {"always-full": 0.0, "tiergate": 0.0}, "oracle": 2.0}
    assert [bar.is_met for bar in served([nobody])] == [False]


def test_cost_is_met_only_within_the_accuracy_that_may_be_lost() -> None:
    cheap = make_cell(0.5, **{"tiergate, cost": figures(1.0, 0.91, cpu_s=0.01)})
    lossy = make_cell(0.5, **{"tiergate, cost": figures(1.0, 0.90, cpu_s=0.01)})
    assert [bar.is_met for bar in cost([cheap, lossy])] == [True, False]


def test_overload_asks_for_goodput_and_recovery() -> None:
    found = {"peak_hz": 100.0, "goodput_hz": {"3": 96.0, "5": 94.0, "10": None}, "recovery_s": None}
    assert [bar.is_met for bar in overloaded(found)] == [True, False, None, False]


def make_row(policy: str, on_time: float, right: float, *, is_valid: bool = True) -> dict[str, Any]:
    real = {"attainment": on_time, "mean_accuracy": right, "effective_accuracy": right, "is_valid": is_valid}
    simulated = {"attainment": 0.99, "mean_accuracy": 0.9}
    return {"trace": "t", "load": 1.0, "policy": policy, "real": real, "simulated": simulated}


def test_agreement_leaves_invalid_runs_out() -> None:
    rows = [make_row("a", 0.985, 0.9), make_row("a", 0.5, 0.5, is_valid=False), make_row("b", 0.97, 0.907)]
    found = {bar.what: bar.is_met for bar in agreement(rows)}
    assert found == {
        "a, attainment": True,
        "a, mean accuracy": True,
        "b, attainment": False,
        "b, mean accuracy": False,
    }


def test_a_constant_must_be_worse_than_the_policy() -> None:
    rows = [make_row("tiergate", 1.0, 0.9), make_row("worse", 1.0, 0.8), make_row("better", 1.0, 0.95)]
    assert [bar.is_met for bar in constants(rows)] == [True, False]


def with_and_without(right: float, cpu_s: float, plain: float = 0.9, plain_s: float = 0.01) -> list[dict[str, Any]]:
    runs = (("tiergate", right, cpu_s), ("tiergate, no cascades", plain, plain_s))
    return [
        {"trace": "t", "load": 1.0, "policy": name, "effective_accuracy": share, "cpu_s_per_good_answer": seconds}
        for name, share, seconds in runs
    ]


@pytest.mark.parametrize(
    ("right", "cpu_s", "is_met"), [(0.9, 0.005, True), (0.899, 0.005, True), (0.89, 0.005, False), (0.95, 0.02, False)]
)
def test_cascades_gain_where_they_save_cpu_and_lose_no_accuracy(right: float, cpu_s: float, *, is_met: bool) -> None:
    (bar,) = cascades(with_and_without(right, cpu_s))
    assert bar.is_met is is_met
    assert bar.where == "t, load 1"


def test_predictions_without_a_claim_are_not_measured() -> None:
    error, coverage = predictions({"error_p95": 0.2, "coverage": None})
    assert (error.is_met, coverage.is_met, coverage.verdict) == (False, None, "not measured")


def test_idle_overhead_is_counted_over_the_frontend() -> None:
    (bar,) = idle({"tiergate": 0.6e-3, "raw frontend": 0.3e-3, "bare": 0.05e-3})
    assert not bar.is_met
    assert bar.measured.startswith("0.300 ms")


def test_parts_that_were_not_run_have_no_bars() -> None:
    assert all_bars({}) == {}
