"""Does the order of variants by the manifest's latency hold when they are timed again?

In each cell (batch size, threads) the manifest's p50 puts the variants in order. A pair of variants contradicts that
order where the one that should be faster is slower in this run beyond noise: the whole 95 % interval of their ratio
lies above one, and its median above ``TIE``. Pairs within that are ties, whose order means nothing to routing. A cell
agrees where no pair contradicts. The share of cells in exactly the same order, ties or not, is given beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from loadtests.building.timing import p50, ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TIE: Final = 1.05


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cells looked at, those that agree, those in exactly the same order, and the pairs that contradict."""

    cells: int
    agreeing: int
    exact: int
    contradictions: tuple[str, ...]


def compare_orders(models: Mapping[str, Iterable[Mapping[str, Any]]]) -> Agreement:
    """Hold the predicted order of each model's cells against the measured one."""
    cells = [(model, cell) for model, found in models.items() for cell in found if len(cell["blocks_s"]) > 1]
    told = [contradictions(model, cell) for model, cell in cells]
    return Agreement(
        cells=len(cells),
        agreeing=sum(not found for found in told),
        exact=sum(_predicted(cell) == _measured(cell) for _, cell in cells),
        contradictions=tuple(line for found in told for line in found),
    )


def contradictions(model: str, cell: Mapping[str, Any]) -> list[str]:
    """Return a line for each pair of variants that the manifest has in the wrong order."""
    found = []
    for faster, slower in combinations(_predicted(cell), 2):
        times = ratio(cell, faster, slower)
        if times.low > 1.0 and times.value > TIE:
            found.append(
                f"{model}, batch {cell['batch']}, {cell['threads']} threads: {faster} takes {times.value:.2f} times "
                f"what {slower} takes"
            )
    return found


def _predicted(cell: Mapping[str, Any]) -> list[str]:
    return sorted(cell["predicted_s"], key=cell["predicted_s"].__getitem__)


def _measured(cell: Mapping[str, Any]) -> list[str]:
    return sorted(cell["blocks_s"], key=lambda name: p50(cell, name))
