from __future__ import annotations

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.telemetry.later import Later
from service.telemetry.tallies import Histogram


def test_nothing_is_counted_before_it_is_read_or_many_have_gathered() -> None:
    seen: list[list[int]] = []
    later = Later[int](seen.append)
    for number in range(300):
        later.note(number)
    assert [len(batch) for batch in seen] == [256]
    later.settle()
    later.settle()
    assert [number for batch in seen for number in batch] == list(range(300))


def test_events_of_many_threads_are_each_counted_once() -> None:
    seen: list[int] = []
    later = Later[int](seen.extend)

    def note(start: int) -> None:
        for number in range(start, start + 5000):
            later.note(number)

    threads = [threading.Thread(target=note, args=(5000 * place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        later.settle()  # as a scrape does meanwhile
    later.settle()
    assert sorted(seen) == list(range(20000))


@given(st.lists(st.floats(0.0, 3.0), max_size=60))
def test_values_counted_together_are_counted_as_one_by_one(values: list[float]) -> None:
    alone, together = Histogram((0.5, 1.0, 2.0)), Histogram((0.5, 1.0, 2.0))
    for value in (*values, 0.5, 1.0, 2.0):
        alone.observe(value)
    together.observe_all([*values, 0.5, 1.0, 2.0])
    assert together.counts == alone.counts
    assert np.isclose(together.total, alone.total)
