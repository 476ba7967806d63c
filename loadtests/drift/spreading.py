"""Work of many parts, done beside each other by as many processes as there are processors.

Each part is named by what it is given, its seed too, so that figures do not depend on who does what and when.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Job = TypeVar("Job")
Found = TypeVar("Found")


class Spread(Protocol):
    """Does a function of each job and returns what came of it, in the jobs' order."""

    def __call__(self, work: Callable[[Job], Found], jobs: Sequence[Job]) -> list[Found]:
        """Do all jobs; to be done elsewhere, jobs, results and the function must be such as can be pickled."""
        ...


def in_turn(work: Callable[[Job], Found], jobs: Sequence[Job]) -> list[Found]:
    """Do the jobs here, one after the other."""
    return [work(job) for job in jobs]


@contextmanager
def beside_each_other() -> Iterator[Spread]:
    """Yield a spread over processes of their own, which end with the block."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:

        def spread(work: Callable[[Job], Found], jobs: Sequence[Job]) -> list[Found]:
            return list(pool.map(work, jobs))

        yield spread
