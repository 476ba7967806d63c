from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.serving.cells import figures_of
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import AnswerSheet, Ladder, make_ladder
from loadtests.simulator.policies import always_smallest
from loadtests.simulator.policy import OURS
from loadtests.simulator.workload import Workload, make_workload
from service.domain.policy_file import ModelPolicy
from service.policy.costs import Plan

ROWS = 100
FIGURES = {"full": (0.03, 0.95), "small": (0.005, 0.8)}
PLAN = Plan("small>full", "small", "full", margin=0.5, escalated_ratio=0.3, accuracy=0.97)
MACHINE = Machine(per_run_s=0.0, is_exact=True)


def make_cascading() -> Ladder:
    """Full knows 95 of 100 rows, small 80; small is unsure of 30 rows, among them all that it gets wrong."""
    rows = np.arange(ROWS)
    correct = np.stack([rows >= 5, rows < 80])
    margins = np.stack([np.ones(ROWS), np.where(rows < 70, 0.9, 0.1)]).astype(np.float32)
    sheet = AnswerSheet(("full", "small"), correct, margins)
    policy = ModelPolicy(safety_margin_ratio=0.0, max_batch_size=1)
    return make_ladder("m", FIGURES, policy=policy, answers=sheet, plans=(PLAN,))


def spread(requests: int) -> Workload:
    return make_workload(np.arange(requests) * 1.0, 0.1)


def test_without_cascades_an_answer_counts_what_its_variant_gets_right_of_all_rows() -> None:
    fleet = Fleet((replace(make_cascading(), plans=()),), machine=MACHINE)
    found = figures_of(always_smallest.POLICY, spread(10), fleet, seed=0)  # of rows 0 to 9 it gets all right
    assert found["effective_accuracy"] == pytest.approx(0.8)
    assert found["cpu_s_per_good_answer"] == pytest.approx(0.005 / 0.8)


def test_with_cascades_the_rows_are_dealt_evenly_and_a_cascade_counts_what_it_answers() -> None:
    fleet = Fleet((make_cascading(),), lanes=1, machine=MACHINE)
    found = figures_of(OURS, spread(50), fleet, seed=0)  # four deals of 50: each of the 100 rows twice
    assert found["effective_accuracy"] == found["expected_accuracy"] == pytest.approx(1.0)
    assert found["variant_shares"].keys() == {"full", "small"}
    assert found["cpu_s_per_good_answer"] == pytest.approx(0.005 + 0.3 * 0.03)
    assert figures_of(OURS, spread(50), fleet, seed=0) == found
