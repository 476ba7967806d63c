from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests.h2load import LoadError
from loadtests.outcome import Judged
from loadtests.serving.calibration import LoadedRun, derive, pile_times_s, read_calibration, saturated_s, scaled
from loadtests.serving.prediction import errors, of_variant, tenths
from loadtests.serving.results import read_results, shortened, write_results
from loadtests.simulator.event_loop import LoopCosts
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import make_ladder
from loadtests.simulator.result import Outcome
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import make_workload
from service.domain.variants import LatencyCell, Profile

if TYPE_CHECKING:
    from pathlib import Path

LOADED = LoadedRun(answers=1000, cpu_s=0.7, lane_s=0.3, compute_s=0.2)


def test_machine_is_derived_from_what_a_loaded_run_took() -> None:
    machine = derive(LOADED, piled_s=0.01, before_s=1e-4, around_s=9e-4)
    assert machine.per_run_s == pytest.approx(1e-4)
    assert machine.loop is not None
    assert machine.loop.read_s + machine.loop.reply_s == pytest.approx(4e-4)
    assert machine.loop.before_s == 1e-4
    assert machine.after_s == pytest.approx(5e-4)
    assert machine.is_learning


def test_piles_tell_what_the_loop_takes_when_it_is_less_than_its_cpu() -> None:
    loop = derive(LOADED, 3e-4, 1e-4, 9e-4).loop
    assert loop is not None
    assert loop.read_s == pytest.approx(1.5e-4)


def piled(gone: slice) -> Judged:
    """Return piles sent to a simulated gateway whose loop takes 0.3 ms a request; some are said to be unanswered."""
    ladder = make_ladder("m", {"only": (1e-5, 0.9)})
    machine = Machine(per_run_s=1e-5, loop=LoopCosts(1e-4, 2e-4, before_s=4e-4))
    times_s = pile_times_s()
    found = simulate(make_workload(times_s, 1.0), Fleet((ladder,), lanes=1, machine=machine))
    answered = found.outcome == Outcome.ANSWERED
    answered[gone] = False
    return Judged({"scheduled_s": times_s, "latency_s": found.finish_s - times_s}, answered, answered, None)


def test_larger_piles_show_what_the_loop_takes_for_each_request_more() -> None:
    assert saturated_s([piled(slice(0))]) == pytest.approx(3e-4, rel=0.02)
    some_whole_and_none = [piled(slice(0, 11)), piled(slice(None))]
    assert saturated_s(some_whole_and_none) == pytest.approx(3e-4, rel=0.02)


def test_piles_that_were_not_answered_tell_nothing() -> None:
    with pytest.raises(LoadError, match="did not answer one whole pile"):
        saturated_s([piled(slice(None))])


def test_calibration_survives_the_results_file() -> None:
    ladder = make_ladder("m", {"full": (0.03, 0.9), "small": (0.01, 0.8)})
    machine = derive(LOADED, 0.01, 1e-4, 9e-4)
    document = {"quantiles_s": {"full": [0.04, 0.05, 0.06]}, "simulated_machine": asdict(machine)}
    found = read_calibration(json.loads(json.dumps(document)), ladder.variants)
    assert found.machine == machine
    assert list(found.measured) == ["full"]
    assert found.measured["full"].at(1) == LatencyCell(1, 0.04, 0.05, 0.06)


def test_results_with_figures_of_before_are_read_without_them() -> None:
    machine = asdict(derive(LOADED, 0.01, 1e-4, 9e-4))
    older = {**machine, "loop": {**machine["loop"], "stolen_ratio": 0.86}}
    found = read_calibration({"quantiles_s": {}, "simulated_machine": older}, ())
    assert asdict(found.machine) == machine


def test_larger_batches_get_slower_by_the_same_ratio_and_scatter_as_rows_do_together() -> None:
    profile = Profile((LatencyCell(1, 1.0, 2.0, 3.0), LatencyCell(4, 3.0, 4.0, 45.0)))
    found = scaled(profile, LatencyCell(1, 2.0, 2.2, 3.0))
    assert found.at(1) == LatencyCell(1, 2.0, 2.2, 3.0)
    longer = found.at(4)
    assert (longer.p50_s, longer.p95_s, longer.p99_s) == pytest.approx((6.0, 6.4, 8.0))


def columns(predicted_s: float, actual_s: list[float], claimed_s: float = np.nan) -> dict[str, np.ndarray]:
    count = len(actual_s)
    queue_s = np.full(count, 0.5)
    return {
        "predicted_s": queue_s + predicted_s,
        "predicted_p99_s": np.full(count, claimed_s),
        "queue_s": queue_s,
        "total_s": queue_s + np.array(actual_s),
        "variant": np.array(["full"] * count),
    }


def test_errors_leave_the_known_wait_out() -> None:
    found = errors(columns(1.0, [1.0, 2.0, 4.0, 0.5]))
    assert found["error_p50"] == pytest.approx(0.625)
    assert found["coverage"] is None


def test_coverage_counts_answers_within_the_claim() -> None:
    found = errors(columns(1.0, [1.0] * 99 + [3.0], claimed_s=2.0))
    assert found["coverage"] == pytest.approx(0.99)
    low, high = found["coverage_interval"]
    assert low < 0.99 < high


def test_reliability_has_ten_points_and_none_of_too_few() -> None:
    predicted_s = np.linspace(1.0, 2.0, 100)
    points = tenths(predicted_s, 2 * predicted_s)
    assert len(points) == 10
    assert points[0]["p50_s"] == pytest.approx(2 * points[0]["predicted_s"])
    assert of_variant(columns(1.0, [1.0] * 5), "full")["tenths"] == []


def test_results_keep_other_parts_and_seven_digits(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "serving.json"
    assert read_results(path) == {}
    write_results(path, {"idle": {"a": 0.123456789}, "sheet": {"rows": (1, 2)}})
    assert read_results(path) == {"sheet": {"rows": [1, 2]}, "idle": {"a": 0.1234568}}
    assert shortened({"x": [1.23456789e-9]}) == {"x": [1.234568e-9]}
