from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.policy_file import ModelPolicy
from service.policy.costs import Costs, Plan
from service.policy.deferral import ArrivalRate, gains_by_batching
from service.policy.desk import Standing
from service.policy.scheduling import Run, Situation, Waiting, choose_run

MOST_ROWS = 8
SECONDS = {"full": 0.030, "small": 0.005}
ACCURACY = {"full": 0.92, "small": 0.86}
LADDER = tuple(SECONDS)


def tables(gain: float) -> dict[str, tuple[float, ...]]:
    """Return times of which each further row adds the share ``gain`` of the first."""
    return {
        name: (0.0, *(seconds * (1.0 - gain + gain * rows) for rows in range(1, MOST_ROWS + 1)))
        for name, seconds in SECONDS.items()
    }


COSTS = Costs(tables(0.1), dict.fromkeys(SECONDS, 1.0), ACCURACY)
IDLE = Situation(COSTS, 0.0, (0.0,), MOST_ROWS)
# Full keeps up with 40 arrivals a second by batches of two, 33 ms each: 0.66 of the lane. One by one takes 1.2 lanes.
BUSY = replace(IDLE, arrival_rate_hz=40.0)


def waiting(due_s: float = 0.1, candidates: tuple[str, ...] = LADDER, batch_key: object = None) -> Waiting:
    return Waiting(due_s, 60.0, 1, candidates, batch_key)


def decided(found: Situation, *queue: Waiting) -> Run:
    run = choose_run(queue, found)
    assert run is not None
    return run


def test_a_lone_request_waits_until_a_second_is_expected_where_single_runs_cannot_keep_up() -> None:
    assert decided(BUSY, waiting()).wait_until_s == pytest.approx(1 / 40)


def test_it_runs_at_once_when_the_batch_that_keeps_up_is_there() -> None:
    run = decided(BUSY, waiting(), waiting())
    assert run.members == (0, 1)
    assert run.wait_until_s <= 0.0


def test_it_runs_at_once_where_single_runs_keep_up() -> None:
    assert decided(replace(BUSY, arrival_rate_hz=31.0), waiting()).wait_until_s <= 0.0
    assert decided(replace(BUSY, arrival_rate_hz=32.0), waiting()).wait_until_s > 0.0
    two = replace(BUSY, lanes_free_s=(0.0, 0.03), arrival_rate_hz=40.0)
    assert decided(two, waiting()).wait_until_s <= 0.0


def test_it_runs_at_once_where_the_deadline_leaves_no_time_for_company() -> None:
    # A batch of two takes 33 ms and the second is expected after 25 ms; a millisecond is kept for waking up.
    assert decided(BUSY, waiting(0.0591)).wait_until_s == pytest.approx(0.025)
    assert decided(BUSY, waiting(0.0589)).wait_until_s <= 0.0


def test_the_soonest_due_moment_of_all_that_waits_counts() -> None:
    fast = replace(BUSY, arrival_rate_hz=120.0)
    assert decided(fast, waiting(0.1), waiting(0.1)).wait_until_s > 0.0
    assert decided(fast, waiting(0.1), waiting(0.045)).wait_until_s <= 0.0


def test_what_is_late_anyway_hinders_nobody() -> None:
    assert decided(BUSY, waiting(), waiting(-1.0)).wait_until_s == pytest.approx(0.025)


@pytest.mark.parametrize("other", [waiting(candidates=("small",)), waiting(batch_key="another shape")])
def test_requests_that_ask_differently_end_the_waiting(other: Waiting) -> None:
    assert decided(BUSY, waiting(), other).wait_until_s <= 0.0


def test_a_request_that_may_not_share_does_not_wait_for_company() -> None:
    assert decided(BUSY, replace(waiting(), may_share=False)).wait_until_s <= 0.0


def test_nobody_waits_for_a_variant_dearer_than_the_objective_takes() -> None:
    assert decided(replace(BUSY, accuracy_loss=0.1), waiting()).wait_until_s <= 0.0


def test_a_cascade_is_not_put_off() -> None:
    plan = Plan("small+full", "small", "full", 0.5, 0.1, 0.93)
    costs = replace(COSTS, plans={plan.name: plan}, _ladders={})
    run = decided(replace(BUSY, costs=costs), waiting(candidates=(plan.name, *LADDER)))
    assert run.plan == plan.name
    assert run.wait_until_s <= 0.0


@given(
    due_s=st.lists(st.floats(0.001, 0.3), min_size=1, max_size=12),
    rate_hz=st.floats(1.0, 2000.0),
    lanes=st.integers(1, 4),
    gain=st.floats(0.01, 1.0),
)
def test_waiting_never_costs_a_request_its_due_moment(
    due_s: list[float], rate_hz: float, lanes: int, gain: float
) -> None:
    costs = Costs(tables(gain), dict.fromkeys(SECONDS, 1.0), ACCURACY)
    queue = [waiting(item) for item in sorted(due_s)]
    run = decided(Situation(costs, 0.0, (0.0,) * lanes, MOST_ROWS, arrival_rate_hz=rate_hz), *queue)
    if run.wait_until_s > 0.0:
        now_s = run.wait_until_s
        later = decided(Situation(costs, now_s, (now_s,) * lanes, MOST_ROWS), *queue)
        assert not later.is_late
        assert all(now_s + later.predicted_s <= queue[member].due_s for member in run.members[: len(later.members)])


def test_the_rate_forgets_with_a_second_and_a_half() -> None:
    rate = ArrivalRate()
    for number in range(1000):
        rate.arrived(number / 100)
    assert rate.hz(9.99) == pytest.approx(100.0, rel=0.02)
    assert rate.hz(11.49) == pytest.approx(rate.hz(9.99) * 0.3679, rel=0.001)


def test_the_rate_takes_moments_that_come_out_of_order() -> None:
    one, other = ArrivalRate(), ArrivalRate()
    one.arrived(1.0)
    one.arrived(0.999)
    other.arrived(1.0)
    other.arrived(1.0)
    assert one.hz(1.0) == pytest.approx(other.hz(1.0))


@pytest.mark.parametrize(
    ("gain", "policy", "watches"),
    [
        (0.1, ModelPolicy(defers=True), True),
        (0.1, ModelPolicy(), False),
        (1.0, ModelPolicy(defers=True), False),
        (0.1, ModelPolicy(defers=True, max_batch_size=1), False),
    ],
)
def test_arrivals_are_watched_only_where_asked_for_and_worth_it(
    gain: float, policy: ModelPolicy, *, watches: bool
) -> None:
    standing = Standing()
    standing.watch_arrivals(tables(gain), policy)
    assert (standing.arrivals is not None) == watches


def test_another_policy_keeps_the_rate_that_was_seen() -> None:
    standing = Standing()
    standing.watch_arrivals(tables(0.1), ModelPolicy(defers=True))
    standing.arrived(1.0, 2.0)
    rate = standing.arrivals
    standing.watch_arrivals(tables(0.1), ModelPolicy(defers=True, weight=2.0))
    assert standing.arrivals is rate
    standing.watch_arrivals(tables(0.1), ModelPolicy())
    assert standing.arrivals is None


def test_a_model_gains_where_one_variant_does() -> None:
    assert gains_by_batching({**tables(1.0), "small": tables(0.1)["small"]}, MOST_ROWS)
    assert not gains_by_batching(tables(1.0), MOST_ROWS)
