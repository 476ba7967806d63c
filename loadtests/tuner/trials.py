"""Trials: candidates simulated on slices of the arrivals, by several processes, with what it has cost.

All candidates meet the same arrivals and the same luck (common random numbers), so that their differences are their
own. Cost is counted in requests simulated and told in whole runs of the part that is tuned on.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

from loadtests.tuner.question import slice_of
from loadtests.tuner.score import Figures, Score, figures_of, mean_of, play, score
from service import interrupts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from loadtests.simulator.workload import Workload
    from loadtests.tuner.notebook import Notebook
    from loadtests.tuner.question import Question
    from loadtests.tuner.space import Candidate, Space
    from service.domain.policy_file import ModelPolicy


AGAIN: Final = 0
"""In place of a stride: the whole part, under luck that the search has not met."""

_LUCKS: Final = 3
_LUCK_OFFSET: Final = 100


class Trials:
    """Simulates candidates; a context, because it may own processes."""

    def __init__(self, question: Question, space: Space, notebook: Notebook, *, processes: int = 1) -> None:
        """Keep the parts; nothing starts before the first trial."""
        self.space = space
        self._question = question
        self._notebook = notebook
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._sliced = {1: question.tuning, AGAIN: question.tuning * _LUCKS}
        self._whole = sum(len(load) for load in question.tuning)
        self.simulated = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes, without awaiting what they still compute."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def spent(self) -> float:
        """What all trials have cost, in runs of the whole tuning part."""
        return self.simulated / self._whole

    def cost(self, stride: int) -> float:
        """Return what one trial on a slice costs, in runs of the whole tuning part."""
        return sum(len(load) for load in self._slices(stride)) / self._whole

    def run(self, stride: int, candidates: Sequence[Candidate]) -> list[Score]:
        """Return the candidates' scores on about one ``stride``-th of the arrivals."""
        keys = [self._key(stride, candidate) for candidate in candidates]
        news = {key: item for key, item in zip(keys, candidates, strict=True) if self._notebook.get(key) is None}
        policies = [self.space.policy(candidate) for candidate in news.values()]
        for key, found in zip(news, self._simulate(stride, policies), strict=True):
            self._notebook.put(key, found)
        # What the notebook knew counts too: a search that is taken up again has the budget of one that was not.
        self.simulated += len(set(keys)) * sum(len(load) for load in self._slices(stride))
        return [score(self.figures(stride, candidate), self._question.limits) for candidate in candidates]

    def figures(self, stride: int, candidate: Candidate) -> tuple[Figures, ...]:
        """Return the figures of a candidate that was tried, one for each workload."""
        found = self._notebook.get(self._key(stride, candidate))
        if found is None:
            raise KeyError(f"candidate {candidate} was not tried on a slice of 1/{stride}")
        return found

    def _key(self, stride: int, candidate: Candidate) -> tuple[int, str]:
        return stride, json.dumps(self.space.settings(candidate), sort_keys=True)

    def _slices(self, stride: int) -> tuple[Workload, ...]:
        if stride not in self._sliced:
            self._sliced[stride] = tuple(slice_of(load, stride) for load in self._question.tuning)
        return self._sliced[stride]

    def _simulate(self, stride: int, policies: Sequence[ModelPolicy]) -> Iterable[tuple[Figures, ...]]:
        if self._processes <= 1 or (self._pool is None and len(policies) <= 1):
            slices = self._slices(stride)
            return (_figures(self._question, policy, slices, stride) for policy in policies)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(self._question,),
            )
        with interrupts_held():
            return self._pool.map(_try, [(stride, policy) for policy in policies])


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait while processes start: one that is half started when it comes would be left behind.

    They inherit the mask and never hear what a terminal sends to all, since it is the parent's to handle; the mask of
    one thread does not keep the parent from hearing it in another one, which is why the handler changes too.
    """
    with interrupts.interrupts_held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_QUESTION: list[Question] = []
_SLICES: dict[int, tuple[Workload, ...]] = {}


def _begin(question: Question) -> None:
    """Keep the question in a worker."""
    _QUESTION[:] = [question]


def _try(task: tuple[int, ModelPolicy]) -> tuple[Figures, ...]:
    stride, policy = task
    if stride not in _SLICES:
        tuning = _QUESTION[0].tuning
        _SLICES[stride] = tuning * _LUCKS if stride == AGAIN else tuple(slice_of(load, stride) for load in tuning)
    return _figures(_QUESTION[0], policy, _SLICES[stride], stride)


def _figures(question: Question, policy: ModelPolicy, slices: Sequence[Workload], stride: int) -> tuple[Figures, ...]:
    first = question.seed + (_LUCK_OFFSET if stride == AGAIN else 0)
    found = [figures_of(play(question, policy, load, first + number)) for number, load in enumerate(slices)]
    count = len(question.tuning)
    return tuple(found) if stride != AGAIN else tuple(mean_of(found[place::count]) for place in range(count))
