from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.telemetry.later import Later, by_code
from service.telemetry.tallies import Histogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

EDGES = (0.5, 1.0, 2.0)


class Seen:
    """Keeps the rows that it is to count."""

    def __init__(self) -> None:
        self.batches: list[list[list[float]]] = []

    def __call__(self, rows: NDArray[np.float64]) -> None:
        self.batches.append(rows.tolist())

    @property
    def rows(self) -> list[list[float]]:
        return [row for batch in self.batches for row in batch]


def test_nothing_is_counted_before_it_is_read_or_many_have_gathered() -> None:
    seen = Seen()
    later = Later(2, seen)
    for number in range(600):
        later.note(number, -number)
    assert [len(batch) for batch in seen.batches] == [512]
    later.settle()
    later.settle()
    assert seen.rows == [[number, -number] for number in range(600)]


def test_events_of_many_threads_are_each_counted_once() -> None:
    seen = Seen()
    later = Later(2, seen)

    def note(start: int) -> None:
        for number in range(start, start + 5000):
            later.note(number, -number)

    threads = [threading.Thread(target=note, args=(5000 * place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        later.settle()  # as a scrape does meanwhile
    later.settle()
    assert sorted(seen.rows) == [[number, -number] for number in range(20000)]


def test_rows_are_told_apart_by_their_code() -> None:
    rows = np.array([[2.0, 0.1, 0.2], [0.0, 0.3, 0.4], [2.0, 0.5, 0.6]])
    assert [(code, found.tolist()) for code, found in by_code(rows)] == [
        (0, [[0.3, 0.4]]),
        (2, [[0.1, 0.2], [0.5, 0.6]]),
    ]


@given(st.lists(st.floats(0.0, 3.0), max_size=60))
def test_each_value_is_counted_at_the_first_edge_that_it_does_not_exceed(values: list[float]) -> None:
    found, counts = Histogram(EDGES), [0] * (len(EDGES) + 1)
    for value in (*values, *EDGES):
        counts[bisect_left(EDGES, value)] += 1
    found.observe(np.array([*values, *EDGES]))
    found.observe(np.array([]))
    assert found.counts == counts
    assert np.isclose(found.total, sum(values) + sum(EDGES))
