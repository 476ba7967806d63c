from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loadtests.simulator.workload import make_workload
from loadtests.tuner.confirm import Confirmed, busiest, confirm
from loadtests.tuner.request import Pace, Request, prepare
from tests.builders import write_repository

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.tuner.question import Question


def test_the_busiest_stretch_holds_the_most_arrivals() -> None:
    part = busiest(make_workload([0.0, 5.0, 10.0, 10.1, 10.2, 11.5, 20.0]), 1.0)
    assert part.arrival_s.tolist() == [10.0, 10.1, 10.2]


def test_a_gateway_below_the_floor_counts_only_where_it_is_sure() -> None:
    assert Confirmed("tuned", 1000, 900, None, 0.0, 0.0, ()).shortfall(0.99) > 0.05
    assert Confirmed("tuned", 100, 98, None, 0.0, 0.0, ()).shortfall(0.99) == 0.0
    assert Confirmed("tuned", 0, 0, None, 0.0, 0.0, ("lag",)).shortfall(0.99) == 0.0


def test_a_gateway_of_its_own_plays_the_unseen_arrivals(tmp_path: Path) -> None:
    write_repository(tmp_path)
    request = Request("sums", tmp_path, ((1.0, 1.0),), ("stand-in:conv",), pace=Pace(rate_hz=40.0), lanes=1)
    asked: Question = prepare(request).question
    asked = replace(asked, judging=(busiest(asked.judging[0], 2.0),))
    rounds: list[str] = []
    found = confirm(request, asked, {"base": asked.base}, 2.0, rounds.append)["base"]
    assert rounds == ["gateway, round 1: base", "gateway, round 2: base"]
    assert found.predicted_attainment == 1.0
    # A machine that is busy with other things makes runs invalid; they are then told apart, not counted.
    assert found.offered % len(asked.judging[0]) == 0
    assert found.offered or found.faults
    assert found.correct_on_time is None  # nobody knows this model's labels
