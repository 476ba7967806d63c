from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import DRAWS, AnswerSheet, Ladder, draw_table, make_ladder, read_answer_sheet
from loadtests.simulator.result import Outcome
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import make_workload
from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell
from service.policy.costs import Plan

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 200
FIGURES = {"full": (0.03, 0.95), "small": (0.005, 0.8)}
MACHINE = Machine(per_run_s=0.0, is_exact=True)


def make_sheet(share_unsure: float = 0.5) -> AnswerSheet:
    """Full knows 95 %, small 80 %; small is unsure of the last rows, among them all that it gets wrong."""
    rows = np.arange(ROWS) / ROWS
    correct = np.stack([rows >= 0.05, rows < 0.8])
    margins = np.stack([np.ones(ROWS), np.where(rows < 1 - share_unsure, 0.9, 0.1)]).astype(np.float32)
    return AnswerSheet(("full", "small"), correct, margins)


def cascading(budget_s: float, gap_s: float) -> tuple[Ladder, Fleet, np.ndarray, np.ndarray]:
    plan = Plan("small>full", "small", "full", margin=0.5, escalated_ratio=0.5, accuracy=0.97)
    policy = ModelPolicy(safety_margin_ratio=0.0, max_batch_size=1)
    ladder = make_ladder("m", FIGURES, policy=policy, answers=make_sheet(), plans=(plan,))
    fleet = Fleet((ladder,), lanes=1, machine=MACHINE)
    result = simulate(make_workload(np.arange(ROWS) * gap_s, budget_s), fleet)
    assert (result.outcome == Outcome.ANSWERED).all()
    return ladder, fleet, result.variant, result.is_on_time & result.is_correct


def test_drawn_times_meet_the_measured_quantiles() -> None:
    times = np.array(draw_table(LatencyCell(1, 0.010, 0.013, 0.020), is_exact=False))
    assert np.quantile(times, [0.5, 0.95, 0.99]) == pytest.approx([0.010, 0.013, 0.020], rel=0.01)
    assert (np.diff(times) >= 0).all()
    assert len(times) == DRAWS
    assert set(draw_table(LatencyCell(1, 0.010, 0.013, 0.020), is_exact=True)) == {0.010}


def test_an_answer_sheet_is_read_back_and_decides_who_is_right(tmp_path: Path) -> None:
    sheet = make_sheet()
    path = tmp_path / "sheet.npz"
    np.savez(path, variants=np.array(sheet.variants), rows_correct=sheet.correct, margins=sheet.margins)
    ladder = make_ladder("m", FIGURES, answers=read_answer_sheet(path))
    assert ladder.accuracy == pytest.approx([0.95, 0.8])
    result = simulate(make_workload(np.arange(ROWS) * 1.0), Fleet((ladder,), machine=MACHINE))
    assert np.array_equal(result.is_correct, sheet.correct[0])


def test_a_cascade_escalates_what_the_first_answer_is_unsure_of() -> None:
    ladder, _, variant, right = cascading(budget_s=0.1, gap_s=1.0)
    unsure = np.arange(ROWS) >= ROWS / 2
    assert np.array_equal(variant == ladder.names.index("full"), unsure)
    assert right.all()


def test_a_cascade_answers_with_what_it_has_where_no_time_is_left() -> None:
    # Arrivals at 9 ms apart leave 4 ms a request for second stages of 30: some get one, the others keep small's answer.
    ladder, _, variant, right = cascading(budget_s=0.1, gap_s=0.009)
    unsure = np.arange(ROWS) >= ROWS / 2
    is_full = variant == ladder.names.index("full")
    assert is_full[unsure].any()
    assert not is_full[unsure].all()
    assert right.mean() >= 0.8


def test_a_dominated_variant_may_be_chosen_where_the_policy_leaves_out_what_dominates_it() -> None:
    full, small = make_ladder("m", FIGURES).variants
    beaten = replace(full, is_routable=False, dominated_by="better")
    assert Ladder("m", (beaten, small)).candidates() == ("full", "small")
    better = replace(full, name="better")
    assert Ladder("m", (better, beaten, small)).candidates() == ("better", "small")
    failed = replace(full, is_routable=False)
    assert Ladder("m", (failed, small)).candidates() == ("small",)


def test_a_cascade_does_on_the_sheet_what_the_sheet_says() -> None:
    ladder, *_ = cascading(budget_s=0.1, gap_s=1.0)
    assert ladder.outcome_of(ladder.plans[0]) == (0.5, 1.0)


def test_cascades_need_margins() -> None:
    plan = Plan("small>full", "small", "full", 0.5, 0.5, 0.97)
    with pytest.raises(ValueError, match="model 'm': cascades need an answer sheet"):
        make_ladder("m", FIGURES, plans=(plan,))


def test_a_sheet_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"margins has shape \(1, 3\), not \(2, rows\)"):
        AnswerSheet(("a", "b"), np.ones((2, 3), np.bool_), np.ones((1, 3), np.float32))
    sheet = AnswerSheet(("a",), np.ones((1, 3), np.bool_), np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match="answer sheet: has a, not full, small"):
        _ = make_ladder("m", FIGURES, answers=sheet).accuracy


def test_candidates_that_a_model_does_not_have_are_named() -> None:
    with pytest.raises(ValueError, match="model 'm' has full, small, not huge"):
        make_ladder("m", FIGURES).candidates(("huge",))
