from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests.simulator import oracle
from loadtests.simulator.comparison import POLICIES
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import AnswerSheet, Ladder, make_ladder
from loadtests.simulator.oracle import exact_value, upper_bound
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import Kind, Workload, make_workload
from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell, Profile, Variant
from service.policy.costs import Plan

if TYPE_CHECKING:
    from numpy.random import Generator

EXACT = Machine(per_run_s=1e-4, is_exact=True)
FIGURES = {"full": (0.03, 0.92), "small": (0.009, 0.9), "tiny": (0.002, 0.86)}


def batching_ladder(rng: Generator) -> Ladder:
    """Variants that gain by batching, with a batch of at most three."""
    variants = []
    for name, (seconds, accuracy) in FIGURES.items():
        times = np.cumsum([seconds, *(seconds * rng.uniform(0.3, 1.0, 2))])
        cells = tuple(LatencyCell(rows + 1, float(each), float(each), float(each)) for rows, each in enumerate(times))
        variants.append(Variant(name, name, accuracy, Profile(cells), 0, 0, ""))
    return Ladder("m", tuple(variants), 3, ModelPolicy(safety_margin_ratio=0.0, max_batch_size=3))


def tight_workload(rng: Generator, requests: int) -> Workload:
    return make_workload(np.cumsum(rng.exponential(0.004, requests)), rng.uniform(0.01, 0.07, requests))


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_is_at_least_the_best_schedule_and_that_at_least_every_policy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fleet = Fleet((batching_ladder(rng),), lanes=1 + seed % 2, machine=EXACT)
    workload = tight_workload(rng, 5)
    exact, bound = exact_value(workload, fleet), upper_bound(workload, fleet)
    assert exact <= bound + 1e-7
    for name, make in POLICIES.items():
        reached = simulate(workload, fleet, make(workload, fleet, 0)).summary().expected_accuracy
        assert reached <= exact + 1e-9, name


def test_the_best_schedule_matches_a_case_worked_out_by_hand() -> None:
    # One lane; two requests at 0, due at 40 and 41 ms. Full and small fit one after the other (30 + 9 = 39 ms).
    ladder = make_ladder("m", FIGURES, policy=ModelPolicy(safety_margin_ratio=0.0, max_batch_size=1))
    fleet = Fleet((ladder,), lanes=1, machine=Machine(per_run_s=0.0, is_exact=True))
    assert exact_value(make_workload([0.0, 0.0], [0.04, 0.041]), fleet) == pytest.approx((0.92 + 0.9) / 2)
    # Two milliseconds less, and two small ones are worth more than full and tiny.
    assert exact_value(make_workload([0.0, 0.0], [0.038, 0.038]), fleet) == pytest.approx(0.9)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("knows_answers", [False, True])
def test_no_policy_exceeds_the_bound_on_a_burst_with_noisy_times(seed: int, *, knows_answers: bool) -> None:
    cells = {name: LatencyCell(1, each, 1.3 * each, 1.6 * each) for name, (each, _) in FIGURES.items()}
    variants = tuple(
        Variant(name, name, accuracy, Profile((cells[name],)), 0, 0, "") for name, (_, accuracy) in FIGURES.items()
    )
    fleet = Fleet((Ladder("m", variants, 4),), gateways=2, lanes=2, machine=Machine())
    rng = np.random.default_rng(seed)
    workload = make_workload(np.cumsum(rng.gamma(0.1, 0.04, 150)), rng.uniform(0.02, 0.12, 150), 0.2)
    bound = upper_bound(workload, fleet, seed=seed, knows_answers=knows_answers)
    assert 0.3 < bound <= 1.0
    for name, make in POLICIES.items():
        summary = simulate(workload, fleet, make(workload, fleet, seed), seed=seed).summary()
        reached = summary.effective_accuracy if knows_answers else summary.expected_accuracy
        assert reached <= bound + 1e-7, name


def test_windows_only_raise_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet((make_ladder("m", FIGURES),), lanes=1, machine=EXACT)
    workload = tight_workload(np.random.default_rng(3), 60)
    whole = upper_bound(workload, fleet)
    monkeypatch.setattr(oracle, "_WINDOW", 7)
    parts = upper_bound(workload, fleet)
    assert whole < parts < 0.92


def test_an_oracle_that_knows_the_answers_takes_the_cheapest_right_one() -> None:
    correct = np.array([[True, False], [False, False], [True, True]])
    sheet = AnswerSheet(tuple(FIGURES), correct, np.ones((3, 2), np.float32))
    ladder = make_ladder("m", FIGURES, answers=sheet)
    fleet = Fleet((ladder,), lanes=1, machine=EXACT)
    workload = make_workload([0.0, 0.0], 0.01, row=[0, 1])
    assert upper_bound(workload, fleet, knows_answers=True) == pytest.approx(1.0)
    assert exact_value(workload, fleet, knows_answers=True) == pytest.approx(1.0)


def test_the_bound_has_cascades_at_their_expected_cost() -> None:
    # Small knows the first half of the rows and is unsure of the second, all of which full knows.
    correct = np.array([[False, False, True, True], [True, True, False, False]])
    margins = np.array([[1.0] * 4, [0.9, 0.9, 0.1, 0.1]], np.float32)
    sheet = AnswerSheet(("full", "small"), correct, margins)
    policy = ModelPolicy(safety_margin_ratio=0.0, max_batch_size=1)
    plan = Plan("small>full", "small", "full", 0.5, 0.5, 1.0)
    ladder = make_ladder("m", {"full": (0.03, 0.5), "small": (0.01, 0.5)}, policy=policy, answers=sheet, plans=(plan,))
    fleet = Fleet((ladder,), lanes=1, machine=Machine(per_run_s=0.0, is_exact=True))
    alone = Fleet((replace(ladder, plans=()),), lanes=1, machine=fleet.machine)
    calm, crowded = make_workload([0.0], 0.1), make_workload([0.0] * 10, 0.1)
    assert upper_bound(calm, fleet) == pytest.approx(1.0)
    assert upper_bound(calm, alone) == pytest.approx(0.5)
    # 100 ms for ten: each takes the cascade's 25 ms or small's 10; four whole cascades use all, ten small ones as much.
    assert upper_bound(crowded, alone) == pytest.approx(0.5)
    assert upper_bound(crowded, fleet) == pytest.approx(0.5)
    roomy = make_workload([0.0] * 4, 0.07)  # 70 ms for four: cascade for x, small for 4 - x: 25 x + 10 (4 - x) = 70
    assert upper_bound(roomy, fleet) == pytest.approx((2.0 + 2 * 0.5) / 4)
    kept_out = make_workload([0.0], 0.1, kinds=(Kind(0, ("small",)),))
    assert upper_bound(kept_out, fleet) == pytest.approx(0.5)


def test_the_bound_respects_candidates_and_several_models() -> None:
    ladder, other = make_ladder("m", FIGURES), make_ladder("n", {"only": (0.01, 0.5)})
    fleet = Fleet((ladder, other), lanes=2, machine=EXACT)
    kinds = (Kind(0, ("tiny",)), Kind(1))
    workload = make_workload(np.arange(40.0), 0.1, kind=np.arange(40) % 2, kinds=kinds)
    assert upper_bound(workload, fleet) == pytest.approx((0.86 + 0.5) / 2)


def test_an_exact_search_refuses_what_it_cannot_search() -> None:
    fleet = Fleet((make_ladder("m", FIGURES),), machine=EXACT)
    with pytest.raises(ValueError, match="1 to 8 requests of one model with exact compute times, not 9"):
        exact_value(make_workload(np.zeros(9)), fleet)
