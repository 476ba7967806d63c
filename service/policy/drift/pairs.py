"""What comparing a variant's answers with full's on the same rows gives, whatever the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Pair(NamedTuple):
    """One row, answered by full and by a variant.

    ``loss`` is what the variant's answer lacks of agreeing, 0..1; ``distance`` compares the scores, 0..1, and moves
    earlier. The rest is for tasks with confidence, else 0: ``margin`` is the variant's (largest less second largest
    probability), ``full_log_odds`` and ``log_odds`` are of the two answers (limited to 30 either way).
    """

    loss: float
    distance: float
    margin: float = 0.0
    full_log_odds: float = 0.0
    log_odds: float = 0.0


class Agreement(Protocol):
    """How answers to a task are compared; one implementation for each task."""

    def compare(self, full: Sequence[NDArray[Any]], variant: Sequence[NDArray[Any]]) -> tuple[Pair, ...]:
        """Return one pair for each row; ``full`` and ``variant`` are the outputs in the model's order, rows first."""
        ...
