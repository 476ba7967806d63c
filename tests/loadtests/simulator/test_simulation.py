from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from loadtests.simulator.comparison import POLICIES
from loadtests.simulator.fleet import Balancer, Fleet, Machine
from loadtests.simulator.ladder import Ladder, make_ladder
from loadtests.simulator.policies import always_full
from loadtests.simulator.policy import OURS
from loadtests.simulator.result import NO_VARIANT, Outcome, Result
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import Kind, Workload, make_workload
from service.domain.inference import Criticality
from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell, Profile, Variant

ALONE = ModelPolicy(safety_margin_ratio=0.0, max_batch_size=1)
LADDER = make_ladder("m", {"full": (0.03, 0.92), "small": (0.005, 0.9), "tiny": (0.002, 0.86)}, policy=ALONE)
EXACT = Machine(per_run_s=0.0, is_exact=True)
NOISY = Machine(per_run_s=60e-6, after_s=1e-4)


def bursts(requests: int, rate_hz: float, *, seed: int = 1, timeout_s: float = 60.0) -> Workload:
    gaps = np.random.default_rng(seed).gamma(0.05, 20.0 / rate_hz, requests)
    return make_workload(np.cumsum(gaps), timeout_s=timeout_s)


def check_conserved(result: Result) -> None:
    has_run = np.isin(result.outcome, (Outcome.ANSWERED, Outcome.EXPIRED_RUNNING))
    assert np.array_equal(has_run, result.variant != NO_VARIANT)
    assert np.array_equal(has_run, ~np.isnan(result.finish_s))
    assert np.all(result.start_s[has_run] >= result.workload.arrival_s[has_run])
    assert np.all(result.is_on_time <= (result.outcome == Outcome.ANSWERED))
    late = result.finish_s > result.workload.arrival_s + result.workload.timeout_s + 1e-12
    assert np.array_equal(late & has_run, result.outcome == Outcome.EXPIRED_RUNNING)


def check_lanes(result: Result) -> None:
    for lane in range(len(result.busy_s)):
        mine = result.lane == lane
        runs = sorted({*zip(result.start_s[mine].tolist(), result.finish_s[mine].tolist(), strict=True)})
        after_s = result.fleet.machine.after_s
        assert all(first[1] - after_s <= second[0] + 1e-12 for first, second in pairwise(runs))
        assert result.busy_s[lane] == pytest.approx(sum(end - start - after_s for start, end in runs))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("load", [1.0, 8.0])
def test_every_request_ends_once_and_no_lane_runs_two_things(name: str, load: float) -> None:
    fleet = Fleet((LADDER,), gateways=2, lanes=2, machine=NOISY)
    workload = bursts(300, load * 4 / 0.03, timeout_s=0.4)
    result = simulate(workload, fleet, POLICIES[name](workload, fleet, 0))
    check_conserved(result)
    check_lanes(result)
    shares = np.bincount(result.outcome, minlength=len(Outcome))
    assert shares.sum() == 300
    assert result.summary().goodput_hz > 0


def test_runs_are_shared_where_batching_gains() -> None:
    cells = (LatencyCell(1, 0.01, 0.01, 0.01), LatencyCell(8, 0.012, 0.012, 0.012))
    ladder = Ladder("m", (Variant("one", "one", 0.9, Profile(cells), 0, 0, ""),), max_batch_size=8)
    result = simulate(make_workload(np.zeros(17), 0.1), Fleet((ladder,), lanes=1, machine=EXACT))
    check_lanes(result)
    assert result.batch.tolist() == [1] + 16 * [8]
    assert result.is_on_time.all()


def test_late_binding_matches_a_case_worked_out_by_hand() -> None:
    # One lane, 50 ms. At 0 the first finds an idle machine and takes full until 30. The second and third, due at 51
    # and 52, wait; at 30 two full runs would end at 90, two small ones at 35 and 40: small for both.
    fleet = Fleet((LADDER,), lanes=1, machine=EXACT)
    result = simulate(make_workload([0.0, 0.001, 0.002], 0.05), fleet)
    assert [LADDER.names[place] for place in result.variant] == ["full", "small", "small"]
    assert result.start_s == pytest.approx([0.0, 0.03, 0.035])
    assert result.finish_s == pytest.approx([0.03, 0.035, 0.04])
    assert result.is_on_time.all()


def test_a_hard_deadline_ends_waiting_and_refuses_what_cannot_be_met() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=EXACT)
    workload = make_workload([0.0, 0.001, 0.002], 0.05, [1.0, 0.02, 0.001])
    result = simulate(workload, fleet, always_full.POLICY)
    # The second could not start before 30 ms and is refused at once; the third is shorter than any variant.
    assert result.outcome.tolist() == [Outcome.ANSWERED, Outcome.INFEASIBLE, Outcome.INFEASIBLE]
    result = simulate(make_workload([0.0, 0.001], 0.05, [1.0, 0.05]), fleet, always_full.POLICY)
    assert result.outcome.tolist() == [Outcome.ANSWERED, Outcome.SHED]


def test_work_that_ends_after_its_hard_deadline_counts_as_wasted() -> None:
    slow = Machine(per_run_s=0.0, ratio=2.0, is_exact=True)
    result = simulate(make_workload([0.0], 0.03, 0.04), Fleet((LADDER,), machine=slow), always_full.POLICY)
    assert result.outcome.tolist() == [Outcome.EXPIRED_RUNNING]
    assert result.summary().expired_work_ratio == 1.0
    assert result.summary().expired == 1


def test_the_wait_agrees_with_lindleys_recursion_and_the_formula_for_constant_service() -> None:
    load, service_s, requests = 0.4, 0.01, 25_000
    gaps = np.random.default_rng(5).exponential(service_s / load, requests)
    ladder = make_ladder("m", {"only": (service_s, 0.9)}, policy=ALONE)
    workload = make_workload(np.cumsum(gaps), 10.0)
    result = simulate(workload, Fleet((ladder,), lanes=1, machine=EXACT))
    waits, wait_s = [], 0.0
    for gap_s in gaps:
        wait_s = max(0.0, wait_s - gap_s)
        waits.append(wait_s)
        wait_s += service_s
    assert result.start_s - workload.arrival_s == pytest.approx(waits, abs=1e-9)
    # Pollaczek and Khinchine: the mean wait of M/D/1 is load / (2 (1 - load)) of a service time.
    assert result.summary().mean_wait_s == pytest.approx(load / (2 * (1 - load)) * service_s, rel=0.05)
    assert result.summary().busy_ratio == pytest.approx(load, rel=0.02)


@pytest.mark.parametrize("balancer", Balancer)
def test_the_same_seed_gives_the_same_result(balancer: Balancer) -> None:
    fleet = Fleet((LADDER,), gateways=3, lanes=2, balancer=balancer, machine=NOISY)
    workload = bursts(400, 600.0)
    one, same, other = (simulate(workload, fleet, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.finish_s, same.finish_s, equal_nan=True)
    assert np.array_equal(one.is_correct, same.is_correct)
    assert not np.array_equal(one.is_correct, other.is_correct)


def test_two_processes_give_what_one_gives() -> None:
    fleet = Fleet((LADDER,), gateways=5, lanes=2, balancer=Balancer.RANDOM, machine=NOISY)
    workload = bursts(700, 900.0)
    one, two = simulate(workload, fleet, processes=1), simulate(workload, fleet, processes=2)
    for name in ("outcome", "variant", "lane", "batch", "start_s", "finish_s", "busy_s"):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True), name
    assert one.wasted_s == pytest.approx(two.wasted_s)


def test_a_balancer_that_looks_waits_less_than_a_blind_one() -> None:
    workload = make_workload(np.cumsum(np.random.default_rng(2).exponential(0.03 / 16 / 0.9, 4000)), 10.0)
    waits = {}
    for balancer in (Balancer.RANDOM, Balancer.TWO_CHOICES):
        fleet = Fleet((LADDER,), gateways=8, lanes=2, balancer=balancer, machine=EXACT)
        waits[balancer] = simulate(workload, fleet, always_full.POLICY).summary().mean_wait_s
    assert waits[Balancer.TWO_CHOICES] < 0.5 * waits[Balancer.RANDOM]


def test_a_more_critical_request_displaces_when_the_queue_is_full() -> None:
    policy = ModelPolicy(safety_margin_ratio=0.0, max_batch_size=1, max_queued=1)
    ladder = make_ladder("m", {"only": (0.03, 0.9)}, policy=policy)
    criticality = [Criticality.NORMAL, Criticality.SHEDDABLE, Criticality.CRITICAL]
    workload = make_workload([0.0, 0.001, 0.002], 1.0, criticality=criticality)
    result = simulate(workload, Fleet((ladder,), lanes=1, machine=EXACT))
    assert result.outcome.tolist() == [Outcome.ANSWERED, Outcome.SHED, Outcome.ANSWERED]


def test_models_share_the_lanes_and_kinds_narrow_the_candidates() -> None:
    other = make_ladder("n", {"big": (0.02, 0.8), "little": (0.001, 0.7)}, policy=ALONE)
    kinds = (Kind(0), Kind(1, ("little",)), Kind(0, ("tiny",)))
    kind = np.arange(300) % 3
    workload = make_workload(np.arange(300) * 0.01, 0.1, kind=kind, kinds=kinds)
    result = simulate(workload, Fleet((LADDER, other), lanes=2, machine=EXACT))
    check_lanes(result)
    assert set(result.variant[kind == 1].tolist()) == {1}
    assert set(result.variant[kind == 2].tolist()) == {2}
    assert set(result.summary().variant_shares) == {"m/full", "m/small", "m/tiny", "n/big", "n/little"}
    assert sum(result.summary().variant_shares.values()) == pytest.approx(1.0)


def test_a_gateway_that_learns_adapts_to_a_machine_slower_than_the_profiles() -> None:
    workload = make_workload(np.arange(3000) * 0.02, 0.05)
    slow = Machine(per_run_s=0.0, ratio=2.0, is_exact=True)
    blind = simulate(workload, Fleet((LADDER,), lanes=2, machine=slow))
    learns = simulate(workload, Fleet((LADDER,), lanes=2, machine=replace(slow, is_learning=True)))
    assert blind.summary().attainment < 0.5
    assert learns.summary().attainment > 0.9


def test_ours_beats_a_constant_and_the_head_only_policy_in_bursts() -> None:
    fleet = Fleet((LADDER,), lanes=2, machine=NOISY)
    workload = bursts(1500, 40.0, seed=7)
    scores = {
        name: simulate(workload, fleet, POLICIES[name](workload, fleet, 0)).summary().expected_accuracy
        for name in ("always-full", "always-smallest", "slackfit", "tiergate")
    }
    ours = simulate(workload, fleet, OURS).summary().expected_accuracy
    assert ours == scores["tiergate"] == max(scores.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"arrival_s": [0.0, 1.0], "kind": [0, 3]}, "kind must be within 0..0"),
        ({"arrival_s": [0.0, 1.0], "criticality": 3}, "criticality must be within 0..2"),
    ],
)
def test_a_workload_that_does_not_fit_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_workload(**changed)  # type: ignore[arg-type]


def test_an_empty_fleet_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one model, gateway and lane, got 1, 0, 2"):
        Fleet((LADDER,), gateways=0)
