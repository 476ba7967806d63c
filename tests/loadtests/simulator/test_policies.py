from __future__ import annotations

import numpy as np
import pytest

from loadtests.simulator.comparison import at_load, compare
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import make_ladder
from loadtests.simulator.policies import always_full, best_fixed, infaas, proteus, slackfit, static_threshold
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import make_workload
from service.domain.policy_file import ModelPolicy
from service.policy.situation import Situation, Waiting

FIGURES = {"full": (0.03, 0.92), "small": (0.009, 0.9), "tiny": (0.002, 0.86)}
NAMES = tuple(FIGURES)
LADDER = make_ladder("m", FIGURES)
MACHINE = Machine(per_run_s=0.0, is_exact=True)


def situation(max_rows: int = 16) -> Situation:
    return Situation(costs=LADDER.costs(), now_s=0.0, lanes_free_s=(0.0,), max_rows=max_rows)


def queue(length: int, due_s: float) -> list[Waiting]:
    return [Waiting(due_s, 60.0, 1, NAMES, None) for _ in range(length)]


def names(fleet: Fleet, variant: np.ndarray) -> list[str]:
    return [fleet.models[0].names[place] for place in variant]


@pytest.mark.parametrize(
    ("length", "due_s", "variant", "batch"),
    [
        (1, 0.1, "full", 1),  # a lone request gets all that its slack allows
        (1, 0.02, "small", 1),
        (5, 0.1, "full", 3),  # 3 x 30 ms comes closest to 100 ms
        (5, 0.05, "small", 5),  # 5 x 9 ms comes closer to 50 ms than 1 x 30 ms
        (30, 0.0025, "tiny", 1),
    ],
)
def test_slackfit_takes_what_comes_closest_to_the_heads_slack(
    length: int, due_s: float, variant: str, batch: int
) -> None:
    run = slackfit.SlackFit()(queue(length, due_s), situation())
    assert run is not None
    assert (run.variant, len(run.members)) == (variant, batch)


def test_slackfit_runs_late_requests_on_the_fastest_variant() -> None:
    run = slackfit.SlackFit()(queue(2, 0.001), situation())
    assert run is not None
    assert run.is_late
    assert run.variant == "tiny"


@pytest.mark.parametrize(("length", "variant"), [(1, "full"), (2, "full"), (3, "small"), (5, "small"), (6, "tiny")])
def test_a_static_threshold_steps_down_with_the_queue(length: int, variant: str) -> None:
    run = static_threshold.Thresholds((2, 5))(queue(length, 0.1), situation())
    assert run is not None
    assert run.variant == variant


def test_thresholds_must_ascend() -> None:
    with pytest.raises(ValueError, match=r"must ascend, got \(5, 2\)"):
        static_threshold.static_threshold((5, 2))


def test_tuning_never_ends_below_where_it_started() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=MACHINE)
    workload = make_workload(np.cumsum(np.random.default_rng(1).gamma(0.1, 0.1, 800)))
    started = static_threshold.static_threshold((4, 8))
    tuned = static_threshold.tune(workload, fleet)
    scores = [simulate(workload, fleet, policy).summary().effective_accuracy for policy in (started, tuned)]
    assert scores[0] < scores[1]


def test_infaas_commits_each_arrival_to_the_best_that_is_in_time_behind_the_queue() -> None:
    ladder = make_ladder("m", FIGURES, policy=ModelPolicy(safety_margin_ratio=0.0, max_batch_size=1))
    fleet = Fleet((ladder,), lanes=1, machine=MACHINE)
    result = simulate(make_workload(np.zeros(5), 0.07), fleet, infaas.POLICY)
    # 30 + 30, then 10 ms are left: 9, then 1 ms is left, where nothing fits and both are refused.
    assert names(fleet, result.variant[:3]) == ["full", "full", "small"]
    assert result.finish_s[:3] == pytest.approx([0.03, 0.06, 0.069])
    assert not result.is_on_time[3:].any()


def test_a_plan_hosts_accurate_variants_while_demand_allows_and_smaller_ones_as_it_grows() -> None:
    rates_hz, accuracy = np.array([33.0, 111.0, 500.0]), np.array([0.92, 0.9, 0.86])
    everyone = np.ones((1, 3))
    calm, _ = proteus.solve(rates_hz, accuracy, (everyone, np.array([60.0])), 2)
    busy, served_hz = proteus.solve(rates_hz, accuracy, (everyone, np.array([140.0])), 2)
    flooded, most_hz = proteus.solve(rates_hz, accuracy, (everyone, np.array([5000.0])), 2)
    assert calm.tolist() == [2, 0, 0]
    assert busy.tolist() == [1, 1, 0]
    assert served_hz.sum() == pytest.approx(140.0)
    assert flooded.tolist() == [0, 0, 2]
    assert most_hz.sum() == pytest.approx(1000.0)


def test_a_plan_serves_every_model() -> None:
    of_model = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    hosts, served_hz = proteus.solve(
        np.array([30.0, 300.0, 50.0]), np.array([0.9, 0.8, 0.7]), (of_model, np.array([40.0, 40.0])), 2
    )
    assert hosts.tolist() == [0, 1, 1]
    assert served_hz == pytest.approx([0.0, 40.0, 40.0])


def test_best_fixed_is_no_worse_than_any_variant() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=MACHINE)
    workload = make_workload(np.cumsum(np.random.default_rng(1).exponential(0.012, 500)))
    best = simulate(workload, fleet, best_fixed.best_fixed(workload, fleet))
    assert set(names(fleet, best.variant)) == {"small"}


def test_the_plain_server_computes_late_requests_and_the_pinned_gateway_saves_who_can_be_saved() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=MACHINE)
    workload = make_workload(np.arange(100) * 0.02, 0.1)
    plain = simulate(workload, fleet, always_full.PLAIN).summary()
    pinned = simulate(workload, fleet, always_full.POLICY).summary()
    assert plain.attainment < 0.15
    assert pinned.attainment > 0.5


def test_a_comparison_names_unknown_policies() -> None:
    fleet = Fleet((LADDER,))
    with pytest.raises(ValueError, match="no policy is called nope; there are always-full-plain, "):
        compare(make_workload([0.0]), fleet, ["nope"], load=1.0)


def test_scaled_arrivals_ask_for_the_stated_share_of_all_lanes() -> None:
    fleet = Fleet((LADDER,), gateways=2, lanes=3)
    arrivals = at_load(np.linspace(5.0, 25.0, 200), 0.5, fleet)
    assert arrivals[0] == 0.0
    assert 200 * 0.03 / (arrivals[-1] * 6) == pytest.approx(0.5)
