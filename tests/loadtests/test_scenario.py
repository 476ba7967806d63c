from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from loadtests.fitted import FITS, draw_stand_in
from loadtests.h2load import LoadError
from loadtests.plan import Mix, RequestClass, draw_schedule
from loadtests.scenario import Scenario, bundled, read_scenario
from loadtests.traces import describe
from loadtests.trial import make_schedule

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL: dict[str, Any] = {
    "name": "mine",
    "duration_s": 20.0,
    "arrivals": {"kind": "poisson", "rate_hz": 50.0},
    "mix": [{"name": "all", "budget_ms": 20.0}],
}


def write(folder: Path, content: object) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_the_promised_scenarios_are_bundled() -> None:
    promised = {"steady", "overload", "spike", "diurnal", "trace_code", "trace_conv", "mixed_hardware"}
    assert promised | {"variant_down", "cold_start"} <= set(bundled())


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_scenario_gives_a_schedule_of_its_mix(name: str) -> None:
    scenario = read_scenario(name)
    rate_hz = scenario.arrivals.rate(200.0)
    schedule = make_schedule(scenario, rate_hz, mix_rows=50)
    assert scenario.name == name
    assert np.all(np.diff(schedule.times_s) >= 0.0)
    assert schedule.times_s[-1] <= scenario.warmup_s + scenario.duration_s
    assert set(schedule.classes) == set(range(len(scenario.mix)))
    assert np.all(schedule.times_s[: schedule.warmups] <= scenario.warmup_s)
    again = make_schedule(scenario, rate_hz, mix_rows=50)
    assert np.array_equal(schedule.times_s, again.times_s)
    assert np.array_equal(schedule.rows, again.rows)


def test_a_rate_may_be_a_share_of_the_capacity() -> None:
    scenario = Scenario.model_validate({**MINIMAL, "arrivals": {"kind": "poisson", "load_ratio": 0.5}})
    assert scenario.arrivals.rate(800.0) == 400.0
    with pytest.raises(LoadError, match="give --rate"):
        scenario.arrivals.rate(None)


def test_a_budget_may_be_a_multiple_of_the_full_time() -> None:
    scenario = Scenario.model_validate({**MINIMAL, "mix": [{"name": "all", "budget_ratio": 4.0}]})
    assert scenario.make_mix(0.005).classes[0].budget_s == pytest.approx(0.02)
    with pytest.raises(LoadError, match="class 'all'"):
        scenario.make_mix(None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arrivals": {"kind": "poisson"}}, "exactly one of rate_hz and load_ratio"),
        ({"arrivals": {"kind": "poisson", "rate_hz": -1}}, "greater than 0"),
        ({"arrivals": {"kind": "tides", "rate_hz": 1}}, "kind"),
        ({"arrivals": {"kind": "trace", "rate_hz": 1}}, "give file, or stand_in"),
        ({"arrivals": {"kind": "mmpp", "rate_hz": 1, "relative": [1, 2], "stays_s": [1, 2, 3]}}, "same length"),
        ({"arrivals": {"kind": "step", "rate_hz": 1, "relative": [1], "starts_ratio": [0.5]}}, "ascend from 0"),
        ({"mix": []}, "mix"),
        ({"mix": [{"name": "all"}]}, "exactly one of budget_ms and budget_ratio"),
        ({"protocol": "carrier-pigeon"}, "protocol"),
        ({"colour": "red"}, "colour"),
        ({"mix": [{"name": "all", "budget_ms": 1}, {"name": "all", "budget_ms": 2}]}, "names that differ"),
        ({"mix": [{"name": "all", "budget_ms": 1, "share": 1e308}]}, "share"),
        (
            {"arrivals": {"kind": "step", "rate_hz": 1, "relative": [1, float("inf")], "starts_ratio": [0, 0.5]}},
            "relative",
        ),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=says):
        read_scenario(write(tmp_path, {**MINIMAL, **change}))


def test_an_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(LoadError, match=r"bundled are .*steady"):
        read_scenario("stedy")


def test_too_many_requests_are_refused_before_they_are_drawn() -> None:
    scenario = Scenario.model_validate({**MINIMAL, "duration_s": 86_400.0})
    with pytest.raises(LoadError, match="run it in parts"):
        make_schedule(scenario, 1000.0, mix_rows=4)


def test_a_trace_file_sets_the_shape_and_the_scenario_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    times = draw_stand_in(FITS["code"], 600.0, 3)
    path.write_text("arrival_s\n" + "\n".join(map(str, times)), encoding="utf-8")
    content = {**MINIMAL, "arrivals": {"kind": "trace", "file": str(path), "rate_hz": 100.0}}
    scenario = Scenario.model_validate(content)
    drawn = scenario.arrivals.draw(100.0, len(times) / 100.0, seed=0)
    assert len(drawn) == pytest.approx(len(times), rel=0.01)
    assert describe(drawn).gap_cv == pytest.approx(describe(times).gap_cv, rel=0.02)


def test_rows_come_up_equally_often_and_kinds_by_their_share() -> None:
    mix = Mix((RequestClass("a", 1.0), RequestClass("b", 1.0)), (3.0, 1.0))
    schedule = draw_schedule(np.arange(8000) / 100.0, mix, 100, seed=1)
    assert set(np.bincount(schedule.rows)) == {80}
    assert np.mean(schedule.classes == 1) == pytest.approx(0.25, abs=0.02)
