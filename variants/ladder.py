"""A ladder: tiers of one network, each with depth, widths and precision of its own, as a search chose them.

It is a plan like any other: the ordinary build makes its tiers, measures them and publishes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from variants.plans import Plan, Pruning


@dataclass(frozen=True, slots=True)
class Found:
    """What the search knew of a tier when it chose it: ``trial`` numbers the candidate in its study.

    ``network`` tells its widths and depth in words.
    ``accuracy`` and ``divergence`` (from full) are of validation rows after a short fit, ``p50_s`` is predicted for one
    row on one thread.
    """

    trial: int
    network: str
    accuracy: float
    divergence: float
    p50_s: float


@dataclass(frozen=True, slots=True)
class Rung:
    """One tier: full ``without`` some residual blocks, pruned unless ``pruning`` is ``None``, perhaps int8."""

    name: str
    without: tuple[str, ...]
    pruning: Pruning | None
    is_quantized: bool
    found: Found


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderPlan(Plan):
    """A plan whose variants are full and the tiers of ``ladder``, most accurate first, instead of the usual ones."""

    ladder: tuple[Rung, ...]


def rungs_of(plan: object) -> tuple[Rung, ...]:
    """Return the plan's tiers, none if it has no ladder."""
    return plan.ladder if isinstance(plan, LadderPlan) else ()
