from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from service.policy.endpoints import (
    EJECTED_S,
    FAILURES_TO_EJECT,
    MOST_EJECTED_S,
    PANIC_RATIO,
    RETRY_RATIO,
    Endpoint,
    RetryBudget,
    callable_now,
    choose_endpoint,
)

DRAWS = st.tuples(st.floats(0.0, 0.999999), st.floats(0.0, 0.999999))


def make(loads: list[int]) -> list[Endpoint]:
    return [Endpoint(f"grpc://server-{number}:1", is_up=True, inflight=load) for number, load in enumerate(loads)]


def fail(endpoint: Endpoint, now_s: float) -> bool:
    return [endpoint.failed(now_s) for _ in range(FAILURES_TO_EJECT)][-1]


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8), DRAWS)
def test_the_most_loaded_of_several_is_never_chosen_before_a_less_loaded_one(
    loads: list[int], draws: tuple[float, float]
) -> None:
    endpoints = make(loads)
    chosen = choose_endpoint(endpoints, draws, 0.0)
    assert chosen is not None
    assert chosen.inflight <= max(item.inflight for item in endpoints)
    if len(set(loads)) == len(loads):
        assert chosen.inflight < max(loads)


def test_load_spreads_far_more_evenly_than_by_one_draw() -> None:
    chance = random.Random(1)  # noqa: S311 - a repeatable mix
    endpoints, alone = make([0] * 50), [0] * 50
    for _ in range(5000):
        chosen = choose_endpoint(endpoints, (chance.random(), chance.random()), 0.0)
        assert chosen is not None
        chosen.inflight += 1
        alone[chance.randrange(50)] += 1
    assert max(item.inflight for item in endpoints) <= 103
    assert max(alone) > 110


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10), DRAWS, st.sets(st.integers(0, 9)))
def test_who_is_down_is_never_called_and_who_is_up_always_can_be(
    states: list[tuple[bool, bool]], draws: tuple[float, float], tried: set[int]
) -> None:
    endpoints = make([0] * len(states))
    for endpoint, (is_up, is_ejected) in zip(endpoints, states, strict=True):
        endpoint.is_up, endpoint.ejected_until_s = is_up, 5.0 if is_ejected else 0.0
    avoid = [endpoints[number] for number in tried if number < len(endpoints)]
    chosen = choose_endpoint(endpoints, draws, 1.0, avoid)
    assert (chosen is None) == (not any(is_up for is_up, _ in states))
    if chosen is not None:
        assert chosen.is_up
        able = callable_now(endpoints, 1.0)
        assert chosen in able
        assert chosen not in avoid or set(able) <= set(avoid)


@given(st.integers(1, 12), st.integers(0, 12))
def test_ejections_count_only_while_half_of_those_that_are_up_are_left(up: int, ejected: int) -> None:
    endpoints = make([0] * up)
    for endpoint in endpoints[:ejected]:
        assert fail(endpoint, 0.0)
    able, left = callable_now(endpoints, 0.5 * EJECTED_S), max(0, up - ejected)
    assert len(able) == (left if left >= PANIC_RATIO * up else up)


def test_failures_in_a_row_eject_and_each_time_for_longer() -> None:
    (endpoint,) = make([0])
    lengths_s, now_s = [], 0.0
    for _ in range(9):
        assert fail(endpoint, now_s)
        lengths_s.append(endpoint.ejected_until_s - now_s)
        now_s = endpoint.ejected_until_s
    assert lengths_s == [min(MOST_EJECTED_S, EJECTED_S * 2**number) for number in range(9)]


def test_a_success_between_failures_keeps_an_endpoint() -> None:
    (endpoint,) = make([0])
    for _ in range(10):
        assert not any(endpoint.failed(0.0) for _ in range(FAILURES_TO_EJECT - 1))
        endpoint.succeeded(0.0)
    assert not endpoint.is_ejected(0.0)


def test_an_endpoint_that_does_well_for_long_is_ejected_as_shortly_as_the_first_time() -> None:
    (endpoint,) = make([0])
    for _ in range(3):
        fail(endpoint, 0.0)
        endpoint.ejected_until_s = 0.0
    for now_s in range(0, 1000, 100):
        endpoint.succeeded(float(now_s))
    fail(endpoint, 2000.0)
    assert endpoint.ejected_until_s == 2000.0 + EJECTED_S


@given(st.lists(st.booleans(), max_size=600))
def test_retries_are_at_most_a_tenth_of_the_calls_and_one(wants_retry: list[bool]) -> None:
    budget, retries = RetryBudget(), 0
    for calls, wanted in enumerate(wants_retry, start=1):
        budget.called()
        retries += wanted and budget.may_retry()
        assert retries <= 1 + RETRY_RATIO * calls + 1e-9


def test_an_outage_after_a_calm_time_is_not_answered_by_a_storm_of_saved_up_retries() -> None:
    budget = RetryBudget()
    for _ in range(100_000):
        budget.called()
    assert sum(budget.may_retry() for _ in range(1000)) == 10
