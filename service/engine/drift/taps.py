"""What is taken of the answers on their way out: a seeded sample, by reference, within a bound.

An answer that is not sampled costs a look-up, a draw and a comparison. What is taken holds the row's inputs and outputs
as they are, or one row's copy of a request of many, and is handed to others; here nothing is computed of it.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from service.engine.drift.shadows import Shadows
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Outcome, Ticket

_LOGGER: Final = logging.getLogger("tiergate")
_MOST_WATCHED: Final = 512
_MOST_WATCHED_BYTES: Final = 16 * 2**20
_MOST_KEPT: Final = 20_000
_MOST_KEPT_BYTES: Final = 64 * 2**20


@dataclass(slots=True, eq=False)
class Sample:
    """One row of a request, and who answered it how; ``judged`` are the variants to compare with full by it."""

    model: LoadedModel
    inputs: Mapping[str, NDArray[Any]]  # (1, ...) each
    variant: str
    outputs: tuple[NDArray[Any], ...]  # (1, ...) each
    judged: tuple[str, ...] = ()
    taken_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        """What it holds on to."""
        return sum(data.nbytes for data in (*self.inputs.values(), *self.outputs))


@dataclass(slots=True, eq=False)
class KeptAnswer:
    """One answer of which the prediction is to be kept for a label that may come."""

    request_id: str
    variant: str
    output: NDArray[Any]  # (rows, ...)


@dataclass(slots=True, eq=False)
class Tap:
    """What is taken of one variant's answers; shares of requests, 0..1.

    ``reversed_shares`` say how many of its answers are also asked of variants that are quarantined.
    """

    chance: Random
    shadow_share: float = 0.0
    watch_share: float = 0.0
    reversed_shares: dict[str, float] = field(default_factory=dict)
    most: float = 0.0
    seen: int = 0

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
        self.dropped = self.failed = 0
        self._model = model
        self._shadows = shadows
        self._bytes_each = sum(_row_bytes(spec.shape) for spec in (*model.info.inputs, *model.info.outputs))

    def answered(self, ticket: Ticket, outcome: Outcome) -> None:
        """Look at one answer; of a cascade at its first stage's, for what comes after that depends on how it went."""
        try:
            self._look(ticket, ticket.kept or outcome, outcome)
        except Exception:  # whatever it is, watching must never cost an answer
            self.failed += 1
            if self.failed == 1:
                _LOGGER.exception("looking at an answer for drift failed")

    def _look(self, ticket: Ticket, first: Outcome, outcome: Outcome) -> None:
        tap = self.taps.get(first.variant)
        if tap is None:
            return
        tap.seen += 1
        draw = tap.chance.random()
        if draw < tap.most:
            self._take(ticket, first, tap, draw)
        if draw < self.kept_share or self.kept_share == 1.0:
            self._keep(ticket, outcome)

    def _take(self, ticket: Ticket, answer: Outcome, tap: Tap, draw: float) -> None:
        judged = [name for name, share in tap.reversed_shares.items() if draw < share]
        if draw < tap.shadow_share:
            judged.append(answer.variant)
        row = int(draw * 2**31) % ticket.waiting.rows
        inputs = {tensor.name: _row(tensor.data, row) for tensor in ticket.request.inputs}
        outputs = tuple([_row(data, row) for data in answer.outputs])
        sample = Sample(self._model, inputs, answer.variant, outputs, tuple(judged), self._shadows.clock())
        if judged:
            self._shadows.offer(sample)
        if draw < tap.watch_share and len(self.watched) < min(_MOST_WATCHED, _MOST_WATCHED_BYTES // self._bytes_each):
            self.watched.append(sample)

    def _keep(self, ticket: Ticket, outcome: Outcome) -> None:
        output = outcome.outputs[0]
        if len(self.kept) < min(_MOST_KEPT, _MOST_KEPT_BYTES // max(1, output.nbytes)):
            self.kept.append(KeptAnswer(ticket.request.id, outcome.variant, output))
        else:
            self.dropped += 1


def _row(data: NDArray[Any], row: int) -> NDArray[Any]:
    """Return one row, (1, ...): as it is where it is alone, else a copy, so that the others are not held too."""
    return data if len(data) == 1 else data[row : row + 1].copy()


def _row_bytes(shape: tuple[int, ...]) -> int:
    size = 8
    for dim in shape[1:]:
        size *= max(1, dim)
    return size
