"""What other processes took is what the cores were busy with beside this process, and is said where it disturbs."""

from __future__ import annotations

import pytest

from variants.contention import Reading, doubt, others_cores, watch_others


def test_others_took_what_the_cores_were_busy_with_and_this_process_was_not() -> None:
    before = Reading(at_s=10.0, busy_s=100.0, own_s=4.0)
    assert others_cores(before, Reading(at_s=14.0, busy_s=107.0, own_s=6.0)) == pytest.approx(1.25)


def test_a_tick_that_was_counted_late_is_nobodys() -> None:
    assert others_cores(Reading(0.0, 10.0, 0.0), Reading(1.0, 10.99, 1.0)) == 0.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Reading(0.0, None, 0.0), Reading(1.0, None, 1.0)),
        (Reading(0.0, 0.0, 0.0), Reading(1.0, 0.0, 1.0)),
        (Reading(1.0, 3.0, 0.0), Reading(1.0, 4.0, 1.0)),
    ],
    ids=["no figures", "cores that nobody counts", "no time"],
)
def test_what_the_system_does_not_tell_is_not_known(before: Reading, after: Reading) -> None:
    assert others_cores(before, after) is None


@pytest.mark.parametrize(
    ("others", "cores", "threads", "is_doubtful"),
    [
        (None, 2, 2, False),
        (0.05, 2, 2, False),
        (0.3, 2, 2, True),
        (0.3, 2, 1, False),
        (1.5, 2, 1, True),
        (30.0, 64, 2, False),
        (0.02, 1, 2, False),
        (0.5, 1, 2, True),
    ],
)
def test_times_are_doubtful_where_fewer_cores_were_left_than_threads(
    *, others: float | None, cores: int, threads: int, is_doubtful: bool
) -> None:
    assert bool(doubt(others, cores, threads)) == is_doubtful


def test_a_doubt_names_the_figures() -> None:
    assert "other processes took 1.4 of 2 cores" in doubt(1.42, 2, 2)


def test_a_watch_knows_its_result_when_it_ends() -> None:
    with watch_others() as others:
        pass
    assert others.cores is None or others.cores >= 0.0
