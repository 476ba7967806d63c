"""What is taken of the answers on their way out: a seeded sample, by reference, within a bound.

An answer that is not sampled costs a look-up, a draw and a comparison. What is taken holds the row's inputs as they are
or, of a request of many rows, a copy of one, and a copy of its outputs, and is handed to others; nothing is computed.

Of a cascade the first stage's answer is taken, for labels too: it answers every request, while the second stage's rows
are chosen by how hard they are, and its accuracy on these is below its manifest's without any drift.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from service.engine.drift.shadows import Shadows
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Outcome, Ticket

    Answer = tuple[NDArray[Any], ...]
    Summon = Callable[[str, Answer, Answer], tuple[str, ...]]

_LOGGER: Final = logging.getLogger("tiergate")
_MOST_WATCHED: Final = 512
_MOST_WATCHED_BYTES: Final = 16 * 2**20
_MOST_KEPT: Final = 20_000
_MOST_KEPT_BYTES: Final = 64 * 2**20


@dataclass(slots=True, eq=False)
class Sample:
    """One row of a request, and who answered it how; ``judged`` are the variants to compare with full by it.

    ``summon`` tells who else is to be asked, given a judged variant's name and the answers of full and of that variant.
    """

    model: LoadedModel
    inputs: Mapping[str, NDArray[Any]]  # (1, ...) each
    variant: str
    outputs: tuple[NDArray[Any], ...]  # (1, ...) each
    judged: tuple[str, ...] = ()
    taken_s: float = 0.0
    summon: Summon | None = None

    @property
    def size_bytes(self) -> int:
        """What it holds on to."""
        return sum(_bytes_of(data) for data in (*self.inputs.values(), *self.outputs))


@dataclass(slots=True, eq=False)
class KeptAnswer:
    """One answer of which the prediction is to be kept for a label that may come."""

    request_id: str
    variant: str
    output: NDArray[Any]  # (rows, ...)


@dataclass(slots=True, eq=False)
class Allowance:
    """How many may still be taken; one thread takes, another one allows, and neither waits."""

    taken: int = 0
    limit: float = inf

    def allow(self, count: float) -> None:
        """Allow so many from now on, whatever was allowed before."""
        self.limit = self.taken + count

    def take(self) -> bool:
        """Take one, if it is allowed."""
        is_allowed = self.taken + 1 <= self.limit
        self.taken += is_allowed
        return is_allowed


@dataclass(slots=True, eq=False)
class Tap:
    """What is taken of one variant's answers; shares of requests, 0..1.

    ``reversed_shares`` say how many of its answers are also asked of variants that are quarantined. The
    allowances bound the number that is taken, since many may come where few came when a share was chosen.
    """

    chance: Random
    shadow_share: float = 0.0
    watch_share: float = 0.0
    reversed_shares: dict[str, float] = field(default_factory=dict)
    most: float = 0.0
    seen: int = 0
    shadow_allowance: Allowance = field(default_factory=Allowance)
    watch_allowance: Allowance = field(default_factory=Allowance)

    def set(self, shadow: float, watch: float, reversed_shares: dict[str, float]) -> None:
        """Take these shares from now on."""
        self.shadow_share, self.watch_share, self.reversed_shares = shadow, watch, reversed_shares
        self.most = max(shadow, watch, *reversed_shares.values(), 0.0)


class ModelTaps:
    """The taps of one model; ``answered`` is called on the event loop's thread for every answer, all else elsewhere."""

    def __init__(self, model: LoadedModel, shadows: Shadows, seed: int) -> None:
        """Take nothing yet; the same seed chooses the same answers of the same sequence."""
        self.taps = {name: Tap(Random(f"{seed} {model.info.name} {name}")) for name in model.health}  # noqa: S311 - a sample
        self.watched: deque[Sample] = deque()
        self.kept: deque[KeptAnswer] = deque()
        self.kept_share = 0.0
        self.summon: Summon | None = None
        self.dropped = self.failed = 0
        self._model = model
        self._shadows = shadows
        self._put_bytes = self._taken_bytes = 0  # each is counted by one thread

    def take_watched(self) -> list[Sample]:
        """Take what is to be watched; called by one thread."""
        samples = [self.watched.popleft() for _ in range(len(self.watched))]
        self._taken_bytes += sum(sample.size_bytes for sample in samples)
        return samples

    def answered(self, ticket: Ticket, outcome: Outcome) -> None:
        """Look at one answer; of a cascade at its first stage's."""
        try:
            self._look(ticket, ticket.kept or outcome)
        except Exception:  # whatever it is, watching must never cost an answer
            self.failed += 1
            if self.failed == 1:
                _LOGGER.exception("looking at an answer for drift failed")

    def _look(self, ticket: Ticket, answer: Outcome) -> None:
        tap = self.taps.get(answer.variant)
        if tap is None:
            return
        tap.seen += 1
        draw = tap.chance.random()
        if draw < tap.most:
            self._take(ticket, answer, tap, draw)
        if draw < self.kept_share:
            self._keep(ticket, answer)

    def _take(self, ticket: Ticket, answer: Outcome, tap: Tap, draw: float) -> None:
        judged = [name for name, share in tap.reversed_shares.items() if draw < share]
        if draw < tap.shadow_share:
            judged.append(answer.variant)
        if judged and not tap.shadow_allowance.take():
            judged = []
        is_watched = draw < tap.watch_share and tap.watch_allowance.take()
        if not (judged or is_watched):
            return
        row = int(draw * 2**31) % ticket.waiting.rows
        inputs = {tensor.name: _row(tensor.data, row) for tensor in ticket.request.inputs}
        outputs = tuple([data[row : row + 1].copy() for data in answer.outputs])  # it may be part of a batch's
        sample = Sample(self._model, inputs, answer.variant, outputs, tuple(judged), self._shadows.clock(), self.summon)
        if judged:
            self._shadows.offer(sample)
        if is_watched:
            self._watch(sample)

    def _watch(self, sample: Sample) -> None:
        held_bytes, size_bytes = self._put_bytes - self._taken_bytes, sample.size_bytes
        if len(self.watched) < _MOST_WATCHED and held_bytes + size_bytes <= _MOST_WATCHED_BYTES:
            self._put_bytes += size_bytes
            self.watched.append(sample)

    def _keep(self, ticket: Ticket, answer: Outcome) -> None:
        output = answer.outputs[0]
        if len(self.kept) < min(_MOST_KEPT, _MOST_KEPT_BYTES // max(1, output.nbytes)):
            self.kept.append(KeptAnswer(ticket.request.id, answer.variant, output))
        else:
            self.dropped += 1


def _row(data: NDArray[Any], row: int) -> NDArray[Any]:
    """Return one row, (1, ...): as it is where it is alone, else a copy, so that the others are not held too."""
    return data if len(data) == 1 else data[row : row + 1].copy()


def _bytes_of(data: NDArray[Any]) -> int:
    """Return what an array holds on to, the bytes of texts too, which numpy does not count."""
    return data.nbytes + (sum(map(len, data.flat)) if data.dtype == object else 0)
